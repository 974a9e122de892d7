"""A teacher sees the student's images under its own normalisation; the loss is Hinton's."""

import dataclasses
import json

import onnx
import pytest
import torch
from rich.console import Console
from small_run import small_config, tiny_architecture
from torch.nn import functional

import tfnas
from tfnas.core.errors import InputError
from tfnas.data.preprocessing import Preprocessing
from tfnas.runs.model_file import TrainedModel
from tfnas.training.retraining import retrain
from tfnas.training.teacher import Teacher, distillation_loss, open_teacher

QUIET = Console(quiet=True)
TEN = tuple("0123456789")
GIVEN = Preprocessing(8, 8, (0.3, 0.4, 0.5), (0.2, 0.25, 0.3))
OTHER = Preprocessing(8, 8, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def test_the_loss_is_the_divergence_written_out():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    p, q = (functional.softmax(logits.float() / 3, 1) for logits in (teacher, student))
    expected = 9 * (p * (p / q).log()).sum(1).mean()
    assert float(distillation_loss(student, teacher, 3.0)) == pytest.approx(float(expected), rel=1e-5)
    assert float(distillation_loss(teacher, teacher, 2.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("expects", [OTHER, None])
def test_the_teachers_normalisation_is_applied(expects):
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    seen = Teacher(torch.nn.Identity(), GIVEN, expects)(GIVEN.normalise(pixels))
    expected = pixels / 255 if expects is None else expects.normalise(pixels)
    torch.testing.assert_close(seen, expected)


def test_a_teacher_stays_in_eval_mode_and_learns_nothing():
    teacher = Teacher(tfnas.Network(tiny_architecture()), GIVEN, OTHER).train()
    assert not teacher.network.training and not any(p.requires_grad for p in teacher.parameters())


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory):
    """A trained teacher."""
    folder = tmp_path_factory.mktemp("teacher")
    return retrain(small_config(folder, "teacher", save_minutes=60.0), QUIET).run_dir


def test_a_student_follows_its_teacher(tmp_path, teacher_run):
    """With the whole loss the teacher's, the student agrees with it more than one that learned from labels does."""
    short = {"epochs": 1, "save_minutes": 60.0}
    taught = {"teacher": str(teacher_run), "distill_weight": 1.0, "seed": 9}
    retrain(small_config(tmp_path, "taught", **short, **taught), QUIET)
    retrain(small_config(tmp_path, "alone", **short, seed=9), QUIET)
    images = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        runs = (teacher_run, tmp_path / "taught", tmp_path / "alone")
        goal, *logits = (tfnas.load(run)(images).log_softmax(1) for run in runs)
    near, far = (functional.kl_div(own.log_softmax(1), goal, log_target=True, reduction="batchmean") for own in logits)
    assert near < far


def test_a_torchvision_teacher_from_a_state_dict(tmp_path):
    import torchvision

    network = torchvision.models.get_model("squeezenet1_1", weights=None, num_classes=10)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    teacher = open_teacher(
        "squeezenet1_1", str(tmp_path / "weights.pt"), dataclasses.replace(GIVEN, image_size=64), TEN
    )
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(teacher(images), network.eval()(images))
    with pytest.raises(InputError, match=r"has the shape 10 .*network's has 7"):
        open_teacher("squeezenet1_1", str(tmp_path / "weights.pt"), GIVEN, TEN[:7])


def test_a_teacher_of_other_classes(teacher_run):
    with pytest.raises(InputError, match="knows 10 classes, the data has 12"):
        open_teacher(str(teacher_run), None, GIVEN, [*TEN, "ten", "eleven"])


def exported_means(path, class_names, size=16):
    """An ONNX file as tfnas export writes them, whose logits are the mean red, green and blue."""
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 3, size, size])
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 3])
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        onnx.helper.make_node("Flatten", ["means"], ["logits"]),
    ]
    graph = onnx.helper.make_graph(nodes, "means", [images], [logits])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    preprocessing = json.dumps(dataclasses.replace(GIVEN, image_size=size, short_side=size).to_json())
    onnx.helper.set_model_props(
        model, {"class_names": json.dumps(class_names), "preprocessing": preprocessing, "architecture": "-"}
    )
    path.write_bytes(model.SerializeToString())
    return str(path)


def test_an_exported_teacher_sees_images_of_its_own_size(tmp_path):
    path = exported_means(tmp_path / "teacher.onnx", ["ant", "bee", "cow"])
    teacher = open_teacher(path, None, GIVEN, ("ant", "bee", "cow"), threads=1)
    pixels = torch.tensor([[10, 200, 77], [0, 255, 128]], dtype=torch.uint8)
    images = GIVEN.normalise(pixels[:, :, None, None].expand(2, 3, 8, 8).contiguous())
    torch.testing.assert_close(teacher(images), pixels / 255)
    options = teacher.network.logits.__self__.session.get_session_options()
    assert options.intra_op_num_threads == 1
    other = exported_means(tmp_path / "other.onnx", ["ant", "bee", "cow"], size=8)
    assert open_teacher(other, None, GIVEN, ("ant", "bee", "cow")).digest != teacher.digest


def test_classes_in_another_order_are_refused(tmp_path):
    path = exported_means(tmp_path / "teacher.onnx", ["ant", "bee", "cow"])
    with pytest.raises(InputError, match=r"calls class 1 'bee', the data calls it 'cow'.*--class_names"):
        open_teacher(path, None, GIVEN, ("ant", "cow", "bee"))
    open_teacher(path, None, GIVEN, ("0", "1", "2"))  # lists have no names
    names = tuple("abcdefghij")
    state = tfnas.Network(tiny_architecture()).state_dict()
    TrainedModel(tiny_architecture(), state, names, GIVEN, "folder").save(tmp_path / "model.pt")
    with pytest.raises(InputError, match="calls class 0 'a', the data calls it 'j'"):
        open_teacher(str(tmp_path / "model.pt"), None, GIVEN, names[::-1])
    open_teacher(str(tmp_path / "model.pt"), None, GIVEN, names)
