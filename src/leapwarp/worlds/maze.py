"""A maze with pillars and a hidden goal (WarpGrad appendix J), for a batch of episodes that are stepped together.

The maze is the same in all episodes. It is a square with a wall around it, and with a pillar in each cell whose row and
column are both even, except the centre. Each episode has a goal that the agent does not see. When the agent steps on
the goal, it is rewarded and moved to a random cell. Cells, including walls, are numbered row by row. All random numbers
of an episode are drawn beforehand, as `Draws`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right: (row, column)
N_ACTIONS = len(MOVES)
N_INPUTS = 17
BIAS, TIME, REWARD, LAST_ACTION = 10, 11, 12, 13  # indices in an observation; 0 to 8 are the neighbourhood, 9 is unused


class Maze(NamedTuple):
    """The maze as tables."""

    side: int
    """cells in a row, including walls"""
    walls: Tensor
    """[side, side], bool"""
    free: Tensor
    """[n_free] the numbers of the cells without a wall"""
    rank: Tensor
    """[cell] the index of a free cell in `free`; 0 for walls"""
    move: Tensor
    """[cell * action] the cell that an action leads to; an action into a wall leads to the same cell"""
    views: Tensor
    """[code, 17] the observation for each `State.code`, with time 0"""
    reward: float
    teleport_into_pillars: bool


class Draws(NamedTuple):
    """The random numbers of a batch of episodes, including those of the policy."""

    goal: Tensor
    """[batch] cells"""
    landing: Tensor
    """[batch, time] the cell that the agent is moved to if it finds the goal at that step"""
    gumbel: Tensor
    """[batch, time, action] Gumbel noise: the largest logit after adding it is a sample of the policy"""


class State(NamedTuple):
    """The state of each episode before a step; [batch] each."""

    cell: Tensor
    code: Tensor
    """row of `Maze.views`; it encodes the cell, the last action (if any), and whether that action found the goal"""


def maze(
    interior: int, reward: float = 10.0, teleport_into_pillars: bool = False, device: torch.device | str = "cpu"
) -> Maze:
    """The maze of `interior` x `interior` cells.

    Args:
        reward: for finding the goal. It is also part of the next observation.
        teleport_into_pillars: whether the agent is moved to any cell inside the outer wall, even to a pillar, as in the
            released code.

    Raises:
        ValueError: `interior` is even or below 3, so there is no centre, or no other cell for a goal.
    """
    if interior < 3 or interior % 2 == 0:
        raise ValueError(f"the interior is {interior} cells wide, needed an odd number of at least 3.")
    side = interior + 2
    line = torch.arange(side)
    pillar = (line % 2 == 0)[:, None] & (line % 2 == 0)
    edge = (line == 0) | (line == side - 1)
    walls = pillar | edge[:, None] | edge
    walls[side // 2, side // 2] = False
    free = (~walls).flatten().nonzero()[:, 0]
    rank = torch.zeros(side * side, dtype=torch.int64)
    rank[free] = torch.arange(len(free))
    cells = torch.arange(side * side)
    inside = (~edge[:, None] & ~edge).flatten()
    steps = torch.tensor([rows * side + columns for rows, columns in MOVES])
    target = torch.where(inside[:, None], cells[:, None] + steps, cells[:, None])
    move = torch.where(walls.flatten()[target], cells[:, None], target).flatten()

    padded = torch.nn.functional.pad(walls.float(), (1, 1, 1, 1), value=1.0)
    patches = padded.unfold(0, 3, 1).unfold(1, 3, 1).reshape(-1, 1, 9)
    views = torch.zeros(side * side, 2 * (N_ACTIONS + 1), N_INPUTS)
    views[..., :9] = patches
    views[..., BIAS] = 1.0
    views[:, 1::2, REWARD] = reward
    for action in range(N_ACTIONS):
        views[:, 2 * (action + 1) : 2 * (action + 1) + 2, LAST_ACTION + action] = 1.0
    walls, free, rank, move = (table.to(device) for table in (walls, free, rank, move))
    return Maze(side, walls, free, rank, move, views.flatten(0, 1).to(device), reward, teleport_into_pillars)


def centre(world: Maze) -> int:
    return (world.side // 2) * world.side + world.side // 2


def draw(world: Maze, batch: int, steps: int, stream: torch.Generator) -> Draws:
    """The random numbers of a batch. Goals are never at the centre, and landings are never at the goal."""
    device, free = world.free.device, world.free.cpu()
    n_free = len(free)
    place = torch.randint(n_free - 1, (batch,), generator=stream)
    place = place + (place >= world.rank[centre(world)].cpu())
    if world.teleport_into_pillars:
        line = torch.randint(1, world.side - 1, (2, steps, batch), generator=stream)
        landing = line[0] * world.side + line[1]
    else:
        landing = torch.randint(n_free - 1, (steps, batch), generator=stream)
        landing = free[landing + (landing >= place)]
    noise = -torch.empty(steps, batch, N_ACTIONS).exponential_(generator=stream).log()
    return Draws(*(part.to(device) for part in (free[place], landing.T, noise.transpose(0, 1))))


def start(world: Maze, batch: int) -> State:
    cell = torch.full((batch,), centre(world), device=world.free.device)
    return State(cell, cell * (2 * (N_ACTIONS + 1)))


def step(world: Maze, state: State, action: Tensor, goal: Tensor, landing: Tensor) -> tuple[State, Tensor]:
    """One move in every episode. -> the next state, and whether the goal was found; [batch] each"""
    reached = world.move[state.cell * N_ACTIONS + action]
    found = reached == goal
    cell = torch.where(found, landing, reached)
    return State(cell, (cell * (N_ACTIONS + 1) + action + 1) * 2 + found), found


def observe(world: Maze, state: State, time: float) -> Tensor:
    """The agents' observations, [batch, 17].

    An observation has the walls in the 3 x 3 cells around the agent, an unused 0, a constant 1, the time, the last
    reward, and the last action as one of four ones.

    Args:
        time: the share of the episode that has passed.
    """
    view = world.views[state.code]
    view[:, TIME] = time
    return view
