"""Reinforcement learning: returns, the actor-critic loss, and rollouts of recurrent agents."""
