import torch

torch.set_num_threads(1)  # as every job of the workflow has it
