"""Networks as functions of their parameters, with the task axis folded into the channels."""
