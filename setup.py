"""Only what setup.cfg cannot say: the supernet's CPU kernels in C, without which all works, but slower."""

import platform

from setuptools import Extension, setup

# Loops may be reordered as if no number were -0 and no error were asked for; infinities and NaN stay what they are.
ARITHMETIC = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast"]
THREADS = [] if platform.system() == "Darwin" else ["-fopenmp"]  # its compiler has none

setup(
    ext_modules=[
        Extension(
            "tfnas.supernet.cpu._kernels",
            ["tfnas/supernet/cpu/_kernels.c"],
            depends=["tfnas/supernet/cpu/_kernels_level.h", "tfnas/supernet/cpu/_kernels_type.h"],
            extra_compile_args=ARITHMETIC + THREADS,
            extra_link_args=THREADS,
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
