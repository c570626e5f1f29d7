# SPDX-License-Identifier: Apache-2.0
"""One algorithm a file, from its paper: the formula on one array, `scale_by_*`, the recipes.

Each row below is one file. From these rows follow the names in `adamx`, the choices of the command
line, and the tables of the tests (`recipe.TABLE`).
"""

from adamx.optimizers import eigenbasis, nesterov, one_pass, prodigy_link, recipe, rms, soap_link
from adamx.optimizers.adabelief import *
from adamx.optimizers.adafactor import *
from adamx.optimizers.adam import *
from adamx.optimizers.adam_mini import *
from adamx.optimizers.adamax import *
from adamx.optimizers.adan import *
from adamx.optimizers.ademamix import *
from adamx.optimizers.adopt import *
from adamx.optimizers.amsgrad import *
from adamx.optimizers.came import *
from adamx.optimizers.lamb import *
from adamx.optimizers.laprop import *
from adamx.optimizers.lion import *
from adamx.optimizers.mars import *
from adamx.optimizers.nadam import *
from adamx.optimizers.prodigy import *
from adamx.optimizers.radam import *
from adamx.optimizers.schedule_free import *
from adamx.optimizers.simplified_ademamix import *
from adamx.optimizers.soap import *
from adamx.optimizers.spam import *
from adamx.optimizers.stable_adamw import *
from adamx.optimizers.yogi import *

# Modules, which `from adamx.optimizers import *` would take too.
del eigenbasis, nesterov, one_pass, prodigy_link, recipe, rms, soap_link
