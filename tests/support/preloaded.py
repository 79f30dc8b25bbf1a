"""What the processes of ``run_distributed`` import, imported once before they are copied.

What a run on the CPU loads, in its order; what is missing here costs only time. DeepSpeed's
optimizer of that name loads torch's compiler at the start of every run.
"""

import deepspeed
import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
import torch.utils.tensorboard  # noqa: F401

import bigbird_ds.training.loop
import bigbird_ds.training.setup  # noqa: F401
