"""A search's optimizers, without PyTorch's compiler.

Some of an optimizer's methods import that compiler when they are first called (two seconds and 0.12 GB), only to have
themselves left uncompiled. Nothing here compiles an optimizer, so what they wrap is called as it is.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from tfnas.supernet.crew import side_by_side
from tfnas.supernet.elastic import ActiveRows
from tfnas.supernet.entries import around
from tfnas.supernet.loops import loop_for


class _Uncompiled(torch.optim.Optimizer):
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class Adam(_Uncompiled, torch.optim.Adam):
    """As `torch.optim.Adam`."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


def one_by_one(found: Iterable[tuple[Tensor, ActiveRows | None]]) -> bool:
    """Whether each of these parameters is updated by itself: on a CPU, where threads share them."""
    return all(parameter.device.type == "cpu" for parameter, _ in found)


class ElasticSGD(_Uncompiled):
    """SGD with momentum and weight decay on the entries in use; the others keep value and momentum bit for bit.

    Inactive channels and operations that were not sampled take no part in a step. Plain SGD on maximum-width tensors
    would move inactive channels by momentum and weight decay alone. Momentum lives at maximum width, so it survives
    every change of width. `rows` tells at each step what is used in part.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        rows: Callable[[], Mapping[Tensor, ActiveRows]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.rows = rows
        self._masks: dict[Tensor, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: gradients are there when it is called
        """Update every parameter that has a gradient, within its active rows."""
        rows = self.rows()
        for group in self.param_groups:
            found = [(one, rows.get(one)) for one in group["params"] if one.grad is not None]
            for parameter, _ in found:  # memory that threads of their own ask for stays apart, and grows
                if "momentum_buffer" not in self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            for some in _apart(found):
                if one_by_one(some):
                    shares = torch.get_num_threads()
                    side_by_side([partial(self._update_all, some[start::shares], group) for start in range(shares)])
                else:
                    self._update_at_once(some, group)

    def _update_all(self, found: Iterable[tuple[Tensor, ActiveRows | None]], group: Mapping[str, float]) -> None:
        for parameter, rows in found:
            self._update(parameter, rows, group)

    def _update_at_once(self, found: Sequence[tuple[Tensor, ActiveRows | None]], group: Mapping[str, float]) -> None:
        """Each operator for many parameters: what is started takes a GPU longer than what is computed."""
        for whole in (True, False):
            some = [(parameter, rows) for parameter, rows in found if (rows is None) == whole]
            if not some:
                continue
            parameters = [parameter for parameter, _ in some]
            momenta = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
            changes = torch._foreach_mul(momenta, group["momentum"] - 1)
            torch._foreach_add_(changes, [one.grad for one in parameters if one.grad is not None])
            torch._foreach_add_(changes, parameters, alpha=group["weight_decay"])
            if whole:
                torch._foreach_add_(momenta, changes)
                torch._foreach_add_(parameters, momenta, alpha=-group["lr"])
            else:  # changing the other entries by nothing is less work than fetching those in use
                in_use = [self._in_use(parameter, rows) for parameter, rows in some if rows is not None]
                torch._foreach_addcmul_(momenta, changes, in_use)
                torch._foreach_addcmul_(parameters, momenta, in_use, value=-group["lr"])

    def _in_use(self, parameter: Tensor, rows: ActiveRows) -> Tensor:
        """Ones where entries are in use, else zeros; made anew when others are."""
        known = self._masks.get(parameter)
        if known is None or known[0] is not rows.entries:
            mask = torch.zeros_like(parameter).index_fill_(rows.dim, rows.entries, 1)
            known = self._masks[parameter] = rows.entries, mask
        return known[1]

    def _update(self, parameter: Tensor, rows: ActiveRows | None, group: Mapping[str, float]) -> None:
        assert parameter.grad is not None
        momentum = self.state[parameter]["momentum_buffer"]
        if loop := loop_for("update", parameter, momentum, parameter.grad):
            dim, in_use = 0, torch.ones(len(parameter), dtype=torch.uint8)
            if rows is not None:
                dim, in_use = rows.dim, torch.zeros(parameter.shape[rows.dim], dtype=torch.uint8)
                in_use.index_fill_(0, rows.entries, 1)
            addresses = [tensor.data_ptr() for tensor in (parameter, momentum, parameter.grad, in_use)]
            factors = [float(group[name]) for name in ("lr", "momentum", "weight_decay")]
            loop(*addresses, *factors, *around(parameter.shape, dim))
            return
        if rows is None:
            momentum.mul_(group["momentum"]).add_(parameter.grad).add_(parameter, alpha=group["weight_decay"])
            parameter.add_(momentum, alpha=-group["lr"])
            return
        # Where most entries are in use, changing the others by nothing is four times as quick as fetching those in use
        in_use = parameter.new_zeros(parameter.shape[rows.dim]).index_fill_(0, rows.entries, 1)
        kept = torch.ones_like(in_use).index_fill_(0, rows.entries, group["momentum"])
        in_use, kept = (_along(factor, parameter, rows.dim) for factor in (in_use, kept))
        momentum.mul_(kept).addcmul_(parameter.grad, in_use).addcmul_(parameter, in_use, value=group["weight_decay"])
        parameter.addcmul_(momentum, in_use, value=-group["lr"])


def _apart(found: Iterable[tuple[Tensor, ActiveRows | None]]) -> list[list[tuple[Tensor, ActiveRows | None]]]:
    """The same in their order, in lists of which none has two parameters in one memory.

    Operations that share weights are such. What is updated at the same time must not be the same.
    """
    lists: list[list[tuple[Tensor, ActiveRows | None]]] = []
    users: Counter[int] = Counter()
    for one in found:
        memory = one[0].untyped_storage().data_ptr() or id(one[0])  # tensors without numbers have none
        if users[memory] == len(lists):
            lists.append([])
        lists[users[memory]].append(one)
        users[memory] += 1
    return lists


def _along(factors: Tensor, parameter: Tensor, dim: int) -> Tensor:
    """One factor for each entry of a dimension, to be multiplied with the whole parameter."""
    return factors.view([-1 if place == dim else 1 for place in range(parameter.dim())])
