"""The maze as a Gymnasium environment, for agents of other libraries.

import gymnasium, leapwarp.worlds.maze_gym
env = gymnasium.make("leapwarp/Maze-v0", interior=11, steps=200)
"""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from leapwarp.worlds import maze

NAME = "leapwarp/Maze-v0"


class MazeEnv(gymnasium.Env[np.ndarray, np.int64]):
    """One episode of `maze` at a time. Every reset draws a new goal. An episode is truncated after `steps` steps."""

    def __init__(self, interior: int = 11, steps: int = 200, reward: float = 10.0) -> None:
        self._maze, self._steps = maze.maze(interior, reward), steps
        low, high = np.zeros(maze.N_INPUTS, np.float32), np.ones(maze.N_INPUTS, np.float32)
        low[maze.REWARD], high[maze.REWARD] = min(0.0, reward), max(0.0, reward)
        self.observation_space = spaces.Box(low, high)
        self.action_space = spaces.Discrete(maze.N_ACTIONS)
        self.state = maze.start(self._maze, 1)
        self._t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        stream = torch.Generator().manual_seed(int(self.np_random.integers(1 << 62)))
        self.draws = maze.draw(self._maze, 1, self._steps, stream)
        self.state, self._t = maze.start(self._maze, 1), 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        chosen, draws = torch.tensor([int(action)]), self.draws
        self.state, found = maze.step(self._maze, self.state, chosen, draws.goal, draws.landing[:, self._t])
        self._t += 1
        return self._observe(), self._maze.reward * float(found), False, self._t >= self._steps, {}

    def _observe(self) -> np.ndarray:
        return maze.observe(self._maze, self.state, self._t / self._steps)[0].numpy()


gymnasium.register(NAME, entry_point=f"{__name__}:{MazeEnv.__name__}")
