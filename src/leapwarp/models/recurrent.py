"""Recurrent agents (WarpGrad appendix J): cells under a policy and a value that are linear in the hidden state.

A cell is met through its *tape*, which steps it through a batch of episodes and then gives back the gradient of any
function of its hidden states (backpropagation through all of the episode). `Recorded` writes the plain equations and
leaves this to autograd; `RnnTape` and `WarpTape` keep what they need in preallocated tensors and run the recurrence
backwards by hand, so that a step is a few operations and each weight's gradient is one product over all steps.

Shapes: x [batch, inputs], h and z [batch, hidden]. Parameters named `warp.*` are the meta-learner's.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from leapwarp.trees import Params

Memory = tuple[Tensor, ...]
"""what a cell carries from step to step; its hidden state is the first"""


class Tape(Protocol):
    def step(self, x: Tensor) -> Tensor:
        """The hidden state after x."""
        ...

    def hidden(self) -> Tensor:
        """All hidden states so far, without graph. -> [time, batch, hidden]"""
        ...

    def backward(self, grad: Tensor) -> Params:
        """The gradient of the cell's parameters, from that of its hidden states [time, batch, hidden]."""
        ...


class Cell(NamedTuple):
    init: Callable[[torch.Generator], Params]
    tape: Callable[[Params, int, int], Tape]
    """(parameters, steps, batch) -> an empty tape"""


# ---------------------------------------------------------------- the plain equations


def rnn_step(params: Params, x: Tensor, memory: Memory) -> Memory:
    """h_t = tanh(V h_{t-1} + W x_t + b)"""
    (h,) = memory
    return ((h @ params["task.v"].T + x @ params["task.w"].T + params["task.b"]).tanh(),)


def tnets_step(params: Params, x: Tensor, memory: Memory) -> Memory:
    """h_t = tanh(T_h V h_{t-1} + T_x W x_t + T_b b), the linear warps of T-Nets"""
    return rnn_step(through_warps(params), x, memory)


def through_warps(params: Params) -> Params:
    """The weights of the plain cell that T-Nets' three projections amount to."""
    return {
        "task.v": params["warp.h"] @ params["task.v"],
        "task.w": params["warp.x"] @ params["task.w"],
        "task.b": params["warp.b"] @ params["task.b"],
    }


def warp_step(params: Params, x: Tensor, memory: Memory) -> Memory:
    """h_t = tanh(U2_h V U1_h h_{t-1} + U2_x W U1_x x_t + U_b b), U = diag(tanh(P z_t)) (WarpGrad equation 15)

    z_t is the hidden state of an LSTM that sees [x_t, h_{t-1}].
    """
    h, z, c = memory
    gates = torch.cat([x, h, z], 1) @ params["warp.lstm.weight"].T + params["warp.lstm.bias"]
    i, f, g, o = gates.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    z = o.sigmoid() * c.tanh()
    n, m = x.shape[1], h.shape[1]
    u1_x, u1_h, u2_x, u2_h, u_b = (z @ params["warp.project"].T).tanh().split([n, m, m, m, m], 1)
    from_h = u2_h * ((u1_h * h) @ params["task.v"].T)
    from_x = u2_x * ((u1_x * x) @ params["task.w"].T)
    return (from_h + from_x + u_b * params["task.b"]).tanh(), z, c


def hebbian_step(params: Params, x: Tensor, memory: Memory) -> Memory:
    """Plastic weights with simple modulation (Miconi et al., 2019)

    h_t = tanh(W x_t + b + (V + alpha * Hebb) h_{t-1}), then Hebb <- clip(Hebb + M_t h_t h_{t-1}^T), to [-1, 1], with
    M_t = tanh(w h_t + b_m), a number for each episode.
    """
    h, plastic = memory
    new = _plastic_step(params, x, h, plastic)
    return new, (plastic + _modulation(params, new) * _outer(new, h)).clamp(-1, 1)


def retroactive_step(params: Params, x: Tensor, memory: Memory) -> Memory:
    """Plastic weights with retroactive modulation: M_t acts on an eligibility trace E of what fired together before

    P <- clip(P + M_t E), then E <- (1 - eta) E + eta h_t h_{t-1}^T.
    """
    h, plastic, trace = memory
    new = _plastic_step(params, x, h, plastic)
    plastic = (plastic + _modulation(params, new) * trace).clamp(-1, 1)
    eta = params["task.eta"]
    return new, plastic, (1 - eta) * trace + eta * _outer(new, h)


def _plastic_step(params: Params, x: Tensor, h: Tensor, plastic: Tensor) -> Tensor:
    recurrent = h @ params["task.v"].T + torch.bmm(params["task.alpha"] * plastic, h[..., None])[..., 0]
    return (x @ params["task.w"].T + params["task.b"] + recurrent).tanh()


def _modulation(params: Params, h: Tensor) -> Tensor:
    return (h @ params["task.modulation.weight"] + params["task.modulation.bias"]).tanh()[:, None, None]


def _outer(new: Tensor, old: Tensor) -> Tensor:
    return new[:, :, None] * old[:, None, :]


class Recorded:
    """A tape of any cell: autograd records its steps."""

    def __init__(self, step: Callable[[Params, Tensor, Memory], Memory], params: Params, memory: Memory) -> None:
        self._step, self._memory = step, memory
        self._params = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
        self._hidden: list[Tensor] = []

    def step(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            self._memory = self._step(self._params, x, self._memory)
        self._hidden.append(self._memory[0])
        return self._memory[0].detach()

    def hidden(self) -> Tensor:
        return torch.stack([h.detach() for h in self._hidden])

    def backward(self, grad: Tensor) -> Params:
        grads = torch.autograd.grad(self._hidden, list(self._params.values()), list(grad))
        return dict(zip(self._params, grads, strict=True))


# ---------------------------------------------------------------- the same, backwards by hand


def tanh_(x: Tensor, out: Tensor, minus_one: Tensor) -> Tensor:
    """tanh(x / 2) into `out`, as 2 sigmoid(x) - 1, which is several times as fast as PyTorch's tanh; x is lost."""
    return torch.add(minus_one, x.sigmoid_(), alpha=2, out=out)


class RnnTape:
    """`rnn_step`. A step is one product of [x, h] with [W, V], and so is a step back."""

    def __init__(self, params: Params, steps: int, batch: int) -> None:
        w, self._v, b = params["task.w"], params["task.v"], params["task.b"]
        self._n, self._t = w.shape[1], 0
        self._weight = 2 * torch.cat([w, self._v], 1).T  # twice: see tanh_
        self._bias, self._minus_one = 2 * b, b.new_tensor(-1.0)
        self._seen = w.new_zeros(steps + 1, batch, self._n + len(b))  # [x_t, h_{t-1}]

    def step(self, x: Tensor) -> Tensor:
        t, n = self._t, self._n
        seen, h = self._seen[t], self._seen[t + 1, :, n:]
        seen[:, :n] = x
        self._t = t + 1
        return tanh_(torch.addmm(self._bias, seen, self._weight), h, self._minus_one)

    def hidden(self) -> Tensor:
        return self._seen[1 : self._t + 1, :, self._n :].contiguous()

    def backward(self, grad: Tensor) -> Params:
        slope = 1 - self._seen[1 : self._t + 1, :, self._n :].square()
        before = torch.empty_like(slope)  # gradient of what tanh is taken of
        last = torch.zeros_like(slope[0])
        for t in reversed(range(self._t)):
            last = torch.mul(torch.addmm(grad[t], last, self._v), slope[t], out=before[t])
        flat = before.flatten(0, 1)
        product = flat.T @ self._seen[: self._t].flatten(0, 1)
        return {
            "task.w": product[:, : self._n],
            "task.v": product[:, self._n :],
            "task.b": flat.sum(0),
        }


class TnetsTape(RnnTape):
    """`tnets_step`: the plain cell on the products of warps and weights, which are the same for a whole batch."""

    def __init__(self, params: Params, steps: int, batch: int) -> None:
        self._leaves = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
        with torch.enable_grad():
            self._products = through_warps(self._leaves)
        super().__init__({name: leaf.detach() for name, leaf in self._products.items()}, steps, batch)

    def backward(self, grad: Tensor) -> Params:
        of_products = super().backward(grad)
        outputs = [of_products[name] for name in self._products]
        grads = torch.autograd.grad(list(self._products.values()), list(self._leaves.values()), outputs)
        return dict(zip(self._leaves, grads, strict=True))


class WarpTape:
    """`warp_step`. The gates are kept in the LSTM's order i, f, g, o; diagonals as u1 of [x, h], u2_x, u2_h, u_b."""

    def __init__(self, params: Params, steps: int, batch: int) -> None:
        self._params, self._t = params, 0
        w, lstm, project = params["task.w"], params["warp.lstm.weight"], params["warp.project"]
        self._m, self._n, self._k = *w.shape, project.shape[1]
        m, n, k = self._m, self._n, self._k
        twice = lstm.new_ones(4 * k)
        twice[2 * k : 3 * k] = 2  # g is a tanh among sigmoids: see tanh_
        self._lstm = (twice[:, None] * lstm).T.contiguous()
        self._lstm_bias = twice * params["warp.lstm.bias"]
        self._project = (2 * project).T.contiguous()
        self._one = lstm.new_tensor(1.0)

        def empty(width: int, more: int = 0) -> Tensor:
            return lstm.new_empty(steps + more, batch, width)

        self._seen, self._c = empty(n + m + k, 1), empty(k, 1)  # [x_t, h_{t-1}, z_{t-1}], c_{t-1}
        self._seen[0], self._c[0] = 0, 0
        self._gates, self._tanh_c, self._u = empty(4 * k), empty(k), empty(n + 4 * m)
        self._scaled, self._products = empty(n + m), empty(2 * m)  # u1 * [x, h]; W u1_x x and V u1_h h

    def step(self, x: Tensor) -> Tensor:
        t, m, n = self._t, self._m, self._n
        seen, after, minus_one = self._seen[t], self._seen[t + 1], -self._one
        seen[:, :n] = x
        gates = torch.addmm(self._lstm_bias, seen, self._lstm, out=self._gates[t]).sigmoid_()
        i, f, g, o = gates.chunk(4, 1)
        torch.add(minus_one, g, alpha=2, out=g)
        c = torch.mul(f, self._c[t], out=self._c[t + 1]).addcmul_(i, g)
        z = after[:, n + m :]
        torch.mul(o, tanh_(2 * c, self._tanh_c[t], minus_one), out=z)
        u = tanh_(z @ self._project, self._u[t], minus_one)
        scaled = torch.mul(seen[:, : n + m], u[:, : n + m], out=self._scaled[t])
        products = self._products[t]
        products[:, :m] = scaled[:, :n] @ self._params["task.w"].T
        products[:, m:] = scaled[:, n:] @ self._params["task.v"].T
        a = torch.mul(u[:, n + 3 * m :], self._params["task.b"])
        a.addcmul_(u[:, n + m : n + 2 * m], products[:, :m]).addcmul_(u[:, n + 2 * m : n + 3 * m], products[:, m:])
        self._t = t + 1
        return tanh_(a.mul_(2), after[:, n : n + m], minus_one)

    def hidden(self) -> Tensor:
        return self._seen[1 : self._t + 1, :, self._n : self._n + self._m].contiguous()

    def backward(self, grad: Tensor) -> Params:
        m, n, k, one, batch = self._m, self._n, self._k, self._one, grad.shape[1]
        w, v, b = (self._params[f"task.{name}"] for name in "wvb")
        lstm, project = self._params["warp.lstm.weight"][:, n:].contiguous(), self._params["warp.project"]
        d_gates, d_u = torch.empty_like(self._gates), torch.empty_like(self._u)  # before sigmoid and tanh
        d_products, d_a = torch.empty_like(self._products), torch.empty_like(grad)
        d_h, d_z, d_c = torch.zeros_like(grad[0]), self._c.new_zeros(batch, k), self._c.new_zeros(batch, k)
        d_scaled = torch.empty_like(self._scaled[0])
        for t in reversed(range(self._t)):
            seen, u, h = self._seen[t], self._u[t], self._seen[t + 1, :, n : n + m]
            # h_t = tanh(a)
            d_h += grad[t]
            a = torch.mul(d_h, torch.addcmul(one, h, h, value=-1), out=d_a[t])
            # a = u2_x (W u1_x x) + u2_h (V u1_h h) + u_b b
            products = self._products[t].view(batch, 2, m)
            back = torch.mul(a[:, None], u[:, n + m : n + 3 * m].view(batch, 2, m), out=d_products[t].view(batch, 2, m))
            of_u = d_u[t]
            torch.mul(a[:, None], products, out=of_u[:, n + m : n + 3 * m].view(batch, 2, m))
            torch.mul(a, b, out=of_u[:, n + 3 * m :])
            torch.mm(back[:, 0], w, out=d_scaled[:, :n])
            torch.mm(back[:, 1], v, out=d_scaled[:, n:])
            torch.mul(d_scaled, seen[:, : n + m], out=of_u[:, : n + m])
            torch.mul(d_scaled[:, n:], u[:, n : n + m], out=d_h)
            # u = tanh(P z)
            of_u *= torch.addcmul(one, u, u, value=-1)
            d_z.addmm_(of_u, project)
            # z = o tanh(c), c = f c' + i g
            gates, tanh_c = self._gates[t], self._tanh_c[t]
            i, f, g, o = gates.chunk(4, 1)
            d_c.addcmul_(d_z * o, torch.addcmul(one, tanh_c, tanh_c, value=-1))
            of_i, of_f, of_g, of_o = d_gates[t].chunk(4, 1)
            torch.mul(d_c, g, out=of_i)
            torch.mul(d_c, self._c[t], out=of_f)
            torch.mul(d_z, tanh_c, out=of_o)
            slope = torch.addcmul(gates, gates, gates, value=-1)
            torch.mul(d_c, i, out=of_g)
            torch.addcmul(one, g, g, value=-1, out=slope[:, 2 * k : 3 * k])
            d_gates[t] *= slope
            d_c *= f
            of_seen = d_gates[t] @ lstm
            d_h += of_seen[:, :m]
            d_z = of_seen[:, m:]
        steps = slice(self._t)
        gates, products = d_gates[steps].flatten(0, 1), d_products[steps].flatten(0, 1)
        scaled, z = self._scaled[steps].flatten(0, 1), self._seen[1 : self._t + 1, :, n + m :].flatten(0, 1)
        return {
            "task.w": products[:, :m].T @ scaled[:, :n],
            "task.v": products[:, m:].T @ scaled[:, n:],
            "task.b": (d_a[steps] * self._u[steps, :, n + 3 * m :]).sum((0, 1)),
            "warp.lstm.weight": gates.T @ self._seen[steps].flatten(0, 1),
            "warp.lstm.bias": gates.sum(0),
            "warp.project": d_u[steps].flatten(0, 1).T @ z,
        }


# ---------------------------------------------------------------- agents


def task_params(inputs: int, hidden: int, actions: int, stream: torch.Generator) -> Params:
    """What all agents have and begin at: W and V orthogonal, b zero, and PyTorch's default weights for the heads."""
    bound = hidden**-0.5
    weight, bias = (torch.empty(*shape).uniform_(-bound, bound, generator=stream) for shape in _heads(hidden, actions))
    return {
        "task.w": nn.init.orthogonal_(torch.empty(hidden, inputs), generator=stream),
        "task.v": nn.init.orthogonal_(torch.empty(hidden, hidden), generator=stream),
        "task.b": torch.zeros(hidden),
        "task.head.weight": weight,  # of the actions' logits and, last, of the value
        "task.head.bias": bias,
    }


def _heads(hidden: int, actions: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (actions + 1, hidden), (actions + 1,)


def rnn(inputs: int, hidden: int, actions: int) -> Cell:
    """The plain RNN, "learning to reinforcement learn"."""
    return Cell(lambda stream: task_params(inputs, hidden, actions, stream), RnnTape)


def tnets_rnn(inputs: int, hidden: int, actions: int) -> Cell:
    """With T-Nets' linear warps, which begin at the identity."""

    def init(stream: torch.Generator) -> Params:
        warps = {f"warp.{name}": torch.eye(hidden) for name in ("h", "x", "b")}
        return task_params(inputs, hidden, actions, stream) | warps

    return Cell(init, TnetsTape)


def warp_rnn(inputs: int, hidden: int, actions: int, warp_hidden: int) -> Cell:
    """With the diagonal warps that an LSTM makes at every step; PyTorch's default weights for both of its layers."""

    def init(stream: torch.Generator) -> Params:
        bound = warp_hidden**-0.5
        shapes = {
            "warp.lstm.weight": (4 * warp_hidden, inputs + hidden + warp_hidden),
            "warp.lstm.bias": (4 * warp_hidden,),
            "warp.project": (inputs + 4 * hidden, warp_hidden),
        }
        theta = task_params(inputs, hidden, actions, stream)
        return theta | {
            name: torch.empty(*shape).uniform_(-bound, bound, generator=stream) for name, shape in shapes.items()
        }

    return Cell(init, WarpTape)


def hebbian_rnn(inputs: int, hidden: int, actions: int, retroactive: bool) -> Cell:
    """With plastic weights, modulated by the network itself."""

    def init(stream: torch.Generator) -> Params:
        bound = hidden**-0.5
        params = task_params(inputs, hidden, actions, stream) | {
            "task.alpha": 0.01 * torch.rand(hidden, hidden, generator=stream),
            "task.modulation.weight": torch.empty(hidden).uniform_(-bound, bound, generator=stream),
            "task.modulation.bias": torch.empty(()).uniform_(-bound, bound, generator=stream),
        }
        return params | ({"task.eta": torch.tensor(0.01)} if retroactive else {})

    def tape(params: Params, steps: int, batch: int) -> Tape:
        h = params["task.b"].new_zeros(batch, hidden)
        plastic = h.new_zeros(batch, hidden, hidden)
        memory = (h, plastic, plastic) if retroactive else (h, plastic)
        return Recorded(retroactive_step if retroactive else hebbian_step, params, memory)

    return Cell(init, tape)
