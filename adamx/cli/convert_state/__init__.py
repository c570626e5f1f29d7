# SPDX-License-Identifier: Apache-2.0
"""Move a training run of PyTorch or Keras to an Orbax checkpoint, or back.

    python -m adamx convert-state checkpoint.pt moved
    python -m adamx convert-state moved back.pt --like checkpoint.pt

SRC of PyTorch is a .pt or .pth file that holds the state dicts of a model and its optimizer, or a
folder of Hugging Face's Trainer. The parameters become nested dictionaries, named as in Flax linen,
in which every `weight` of two axes is taken for a linear layer's: it becomes `kernel`, transposed.
torch's names do not tell an Embedding from a Linear, so the mapping has to name each table:

    {"names": {"tok/embedding": "tok.weight"}}

or --shapes give the tree of your model. The table that is printed says how each leaf was taken. For
other trees and other optimizers call `adamx.interop.from_torch` in a program.

SRC of Keras is a .keras or .weights.h5 file. Its mapping has "names" from our paths to the arrays
of the file (`layers/dense/vars/0`), in the order of `model.trainable_variables`; for a .weights.h5
also "kind": adam, adamw, nadam, adamax or lamb.

The mapping is a JSON file with any of: "names" (our path, or a module's, to theirs), "layouts" (a
path pattern to "same", "linear", "conv", "conv_transpose" or "transpose_kernel"), "order" (their
names of the parameters of each group, where the file has none), "kind" (the class of the optimizer,
where its settings do not tell it).
"""

from adamx.cli.convert_state.command import add_arguments, run

__all__ = ["add_arguments", "run"]
