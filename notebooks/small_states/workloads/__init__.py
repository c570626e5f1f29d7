# SPDX-License-Identifier: Apache-2.0
"""The workloads of the study, by name. Each is one short file, in nothing but JAX."""

from notebooks.small_states.workloads.bigram import bigram
from notebooks.small_states.workloads.cnn import cnn
from notebooks.small_states.workloads.control import control
from notebooks.small_states.workloads.embedding import embedding
from notebooks.small_states.workloads.mlp import mlp
from notebooks.small_states.workloads.transformer import transformer
from notebooks.small_states.workloads.workload import Problem, Workload

WORKLOADS = {w.name: w for w in (mlp, cnn, bigram, embedding, control, transformer)}
