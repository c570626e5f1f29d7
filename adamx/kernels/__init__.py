# SPDX-License-Identifier: Apache-2.0
"""A step in one pass over memory on CPUs, where XLA makes one pass per result.

The loops are C++ (`csrc/`), called by XLA on its own threads. They take over by themselves: a leaf
for which there is a loop is stepped by it, others by XLA, with the same result.

    twins.py      which formula has a twin in C++
    choose.py     whether a leaf can be stepped by a loop, and by which
    primitive.py  a leaf's step as a JAX primitive: the loop on CPUs, XLA everywhere else
    library.py    finds the compiled library and tells why there is none
    build.py      compiles it when the package is installed

`ADAMX_KERNELS=0` turns the loops off; `with adamx.kernels.using(False):` does for what is traced
inside.
"""

from adamx.core.kernel_use import using as using
from adamx.kernels.choose import laid_alike as laid_alike
from adamx.kernels.choose import loop as loop
from adamx.kernels.choose import pays_alone as pays_alone
from adamx.kernels.choose import vector as vector
from adamx.kernels.library import available as available
from adamx.kernels.library import used as used
from adamx.kernels.primitive import Loop as Loop
from adamx.kernels.primitive import Operands as Operands
from adamx.kernels.primitive import step as step
