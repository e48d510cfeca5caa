"""Recurrent agents (WarpGrad appendix J): a cell, and a policy and a value that are linear in its hidden state.

A cell is used through its *tape*. The tape steps the cell through a batch of episodes, and then computes the gradient
of any function of the hidden states, by backpropagation through the whole episode. The tape `Recorded` takes any plain
equation and uses autograd: a new cell can begin with it. The tapes of the agents here store what they need in
preallocated tensors, and their backward passes are written by hand. So a step is a few operations, and the gradient of
each weight is one product over all steps. Tests compare both.

Shapes: parameters [run, ...], x [run, batch, inputs], h and z [run, batch, hidden]. Parameters named `warp.*` are
warps; all others are task parameters.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from leapwarp.trees import Params

_clamp_backward = torch.ops.aten.hardtanh_backward.default
"""(gradient, clamped values, lowest, highest) -> the gradient, or 0 where a value was clamped"""

Memory = tuple[Tensor, ...]
"""the tensors that a cell passes from step to step; the first is its hidden state"""


class Tape(Protocol):
    def step(self, x: Tensor) -> Tensor:
        """The hidden state after x."""
        ...

    def hidden(self) -> Tensor:
        """All hidden states so far, detached from the graph. -> [run, time, batch, hidden]"""
        ...

    def backward(self, grad: Tensor) -> Params:
        """The gradient of the cell's parameters, from the gradient of its hidden states [run, time, batch, hidden]."""
        ...


class Cell(NamedTuple):
    init: Callable[[torch.Generator], Params]
    """the parameters of one run, without the axis of runs"""
    tape: Callable[[Params, int, int], Tape]
    """(parameters [run, ...], steps, batch size of each run) -> an empty tape"""


# ---------------------------------------------------------------- the plain equations


def rnn_step(params: Params, x: Tensor, memory: Memory) -> Memory:
    """h_t = tanh(V h_{t-1} + W x_t + b)"""
    (h,) = memory
    return ((h @ params["task.v"].mT + x @ params["task.w"].mT + params["task.b"][:, None]).tanh(),)


def tnets_step(params: Params, x: Tensor, memory: Memory) -> Memory:
    """h_t = tanh(T_h V h_{t-1} + T_x W x_t + T_b b), the linear warps of T-Nets"""
    return rnn_step(through_warps(params), x, memory)


def through_warps(params: Params) -> Params:
    """The weights of a plain cell that is equivalent to the T-Nets cell with its three linear warps."""
    return {
        "task.v": params["warp.h"] @ params["task.v"],
        "task.w": params["warp.x"] @ params["task.w"],
        "task.b": (params["warp.b"] @ params["task.b"][..., None])[..., 0],
    }


def warp_step(params: Params, x: Tensor, memory: Memory) -> Memory:
    """h_t = tanh(U2_h V U1_h h_{t-1} + U2_x W U1_x x_t + U_b b), U = diag(tanh(P z_t)) (WarpGrad equation 15)

    z_t is the hidden state of an LSTM that sees [x_t, h_{t-1}].
    """
    h, z, c = memory
    gates = torch.cat([x, h, z], -1) @ params["warp.lstm.weight"].mT + params["warp.lstm.bias"][:, None]
    i, f, g, o = gates.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    z = o.sigmoid() * c.tanh()
    n, m = x.shape[-1], h.shape[-1]
    u1_x, u1_h, u2_x, u2_h, u_b = (z @ params["warp.project"].mT).tanh().split([n, m, m, m, m], -1)
    from_h = u2_h * ((u1_h * h) @ params["task.v"].mT)
    from_x = u2_x * ((u1_x * x) @ params["task.w"].mT)
    return (from_h + from_x + u_b * params["task.b"][:, None]).tanh(), z, c


def hebbian_step(params: Params, x: Tensor, memory: Memory) -> Memory:
    """Plastic weights with simple modulation (Miconi et al., 2019).

    h_t = tanh(W x_t + b + (V + alpha * Hebb) h_{t-1}), and then Hebb <- clip(Hebb + M_t h_t h_{t-1}^T) to [-1, 1]. The
    modulation M_t = tanh(w h_t + b_m) is one number for each episode.
    """
    h, plastic = memory
    new = _plastic_step(params, x, h, plastic)
    return new, (plastic + _modulation(params, new) * _outer(new, h)).clamp(-1, 1)


def retroactive_step(params: Params, x: Tensor, memory: Memory) -> Memory:
    """Plastic weights with retroactive modulation (Miconi et al., 2019): M_t multiplies an eligibility trace E.

    Hebb <- clip(Hebb + M_t E), and then E <- (1 - eta) E + eta h_t h_{t-1}^T. So E is a running mean of the products of
    activations at earlier steps.
    """
    h, plastic, trace = memory
    new = _plastic_step(params, x, h, plastic)
    plastic = (plastic + _modulation(params, new) * trace).clamp(-1, 1)
    eta = params["task.eta"].view(-1, 1, 1, 1)
    return new, plastic, (1 - eta) * trace + eta * _outer(new, h)


def _plastic_step(params: Params, x: Tensor, h: Tensor, plastic: Tensor) -> Tensor:
    weights = (params["task.alpha"].unsqueeze(1) * plastic).flatten(0, 1)  # [run * batch, hidden, hidden]
    of_plastic = torch.bmm(weights, h.view(len(weights), -1, 1)).view(h.shape)
    of_x = torch.baddbmm(params["task.b"].unsqueeze(1), x, params["task.w"].mT)
    return (of_x + torch.baddbmm(of_plastic, h, params["task.v"].mT)).tanh()


def _modulation(params: Params, h: Tensor) -> Tensor:
    weight, bias = params["task.modulation.weight"], params["task.modulation.bias"]
    return torch.baddbmm(bias.view(-1, 1, 1), h, weight.unsqueeze(2)).tanh().unsqueeze(3)


def _outer(new: Tensor, old: Tensor) -> Tensor:
    return new.unsqueeze(3) * old.unsqueeze(2)


class Recorded:
    """A tape for any cell, whose steps are recorded by autograd."""

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
        return torch.stack([h.detach() for h in self._hidden], 1)

    def backward(self, grad: Tensor) -> Params:
        grads = torch.autograd.grad(self._hidden, list(self._params.values()), grad.unbind(1))
        return dict(zip(self._params, grads, strict=True))


# ---------------------------------------------------------------- the same, with backward passes written by hand


def tanh_(x: Tensor, out: Tensor, minus_one: Tensor) -> Tensor:
    """Write tanh(x / 2) into `out`; `x` is overwritten.

    It is computed as 2 sigmoid(x) - 1, which is several times as fast as PyTorch's tanh.
    """
    return torch.add(minus_one, x.sigmoid_(), alpha=2, out=out)


class RnnTape:
    """The tape of `rnn_step`. A step is one product of [x, h] with [W, V], and a backward step is one product too."""

    def __init__(self, params: Params, steps: int, batch: int) -> None:
        w, self._v, b = params["task.w"], params["task.v"], params["task.b"]
        (runs, m, self._n), self._t = w.shape, 0
        self._weight = 2 * torch.cat([w, self._v], 2).mT  # doubled, since tanh_ halves its argument
        self._bias, self._minus_one = 2 * b[:, None], b.new_tensor(-1.0)
        self._seen = w.new_zeros(runs, steps + 1, batch, self._n + m)  # [x_t, h_{t-1}]
        self._at = _views((self._seen, [slice(None), slice(self._n), slice(self._n, None)]))

    def step(self, x: Tensor) -> Tensor:
        seen, seen_x, _ = self._at[self._t]
        self._t += 1
        seen_x.copy_(x)
        return tanh_(torch.baddbmm(self._bias, seen, self._weight), self._at[self._t][2], self._minus_one)

    def hidden(self) -> Tensor:
        return self._seen[:, 1 : self._t + 1, :, self._n :].contiguous()

    def backward(self, grad: Tensor) -> Params:
        slope = 1 - self._seen[:, 1 : self._t + 1, :, self._n :].square()
        before = torch.empty_like(slope)  # gradient at the argument of tanh
        last = torch.zeros_like(slope[:, 0])
        each = zip(*(part.unbind(1) for part in (grad, slope, before)), strict=True)
        for of_h, slope_t, before_t in reversed(list(each)):
            last = torch.mul(torch.baddbmm(of_h, last, self._v), slope_t, out=before_t)
        flat = before.flatten(1, 2)
        product = flat.mT @ self._seen[:, : self._t].flatten(1, 2)
        return {
            "task.w": product[..., : self._n],
            "task.v": product[..., self._n :],
            "task.b": flat.sum(1),
        }


class TnetsTape(RnnTape):
    """The tape of `tnets_step`: a plain cell whose weights are the products of warps and task weights.

    The products are computed once for a batch of episodes.
    """

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


class HebbianTape:
    """The tape of `hebbian_step`. It keeps the plastic weights of every step, [run, batch, hidden, hidden].

    The backward pass goes through the update of the plastic weights first, then through the new hidden state. Each step
    has its own tensors, since the system would clear the memory of one large tensor anew for every batch of episodes.
    """

    def __init__(self, params: Params, steps: int, batch: int) -> None:
        w, self._v, b = (params[f"task.{name}"] for name in "wvb")
        (runs, m, self._n), self._t = w.shape, 0
        self._weight, self._bias = torch.cat([w, self._v], 2).mT.contiguous(), b[:, None]
        self._alpha = params["task.alpha"].unsqueeze(1)
        self._read = params["task.modulation.weight"].unsqueeze(2)
        self._read_bias = params["task.modulation.bias"].view(-1, 1, 1)
        self._seen = w.new_zeros(runs, steps + 1, batch, self._n + m)  # [x_t, h_{t-1}]
        self._modulation = w.new_empty(runs, steps, batch, 1)
        self._plastic = [w.new_empty(runs, batch, m, m) for _ in range(steps + 1)]  # Hebb before each step
        self._plastic[0].zero_()
        self._scaled = torch.empty_like(self._plastic[0])  # alpha * Hebb

    def step(self, x: Tensor) -> Tensor:
        t, n, seen = self._t, self._n, self._seen[:, self._t]
        self._t += 1
        seen[..., :n] = x
        of_plastic = _times(torch.mul(self._alpha, self._plastic[t], out=self._scaled), seen[..., n:])
        new = torch.baddbmm(of_plastic + self._bias, seen, self._weight).tanh_()
        self._seen[:, t + 1, :, n:] = new
        self._modulation[:, t] = torch.baddbmm(self._read_bias, new, self._read).tanh_()
        self._learn(t, new, seen[..., n:])
        return new

    def _learn(self, t: int, new: Tensor, h: Tensor) -> None:
        """Write the plastic weights after step t."""
        change = (self._modulation[:, t] * new).unsqueeze(3)
        torch.addcmul(self._plastic[t], change, h.unsqueeze(2), out=self._plastic[t + 1]).clamp_(-1, 1)

    def _unlearn(self, t: int, grad: Tensor, new: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of `new`, `h` and the modulation of step t, from that of the plastic weights before clipping.

        The argument `grad` is not changed: it is also the gradient of the plastic weights before the step.
        """
        modulation, of_new = self._modulation[:, t], _times(grad, h)
        return modulation * of_new, modulation * _before(grad, new), (new * of_new).sum(2, keepdim=True)

    def hidden(self) -> Tensor:
        return self._seen[:, 1 : self._t + 1, :, self._n :].contiguous()

    def backward(self, grad: Tensor) -> Params:
        """As `Tape.backward`. It can be called once."""
        n, steps = self._n, self._t
        before, of_modulation = torch.empty_like(grad), torch.empty_like(self._modulation[:, :steps])
        of_h, of_plastic, of_alpha = (torch.zeros_like(each) for each in (grad[:, 0], self._scaled, self._scaled))
        outer = torch.empty_like(of_alpha)
        for t in reversed(range(steps)):
            plastic, h, new = self._plastic[t], self._seen[:, t, :, n:], self._seen[:, t + 1, :, n:]
            of_plastic = _clamp_backward(of_plastic, self._plastic[t + 1], -1, 1)
            of_new, of_old, of_m = self._unlearn(t, of_plastic, new, h)
            of_m = torch.mul(of_m, 1 - self._modulation[:, t].square(), out=of_modulation[:, t])
            # h_t = tanh(a) and a = W x + b + (V + alpha * Hebb) h
            a = (grad[:, t] + of_h + of_new + of_m * self._read.mT) * (1 - new.square())
            before[:, t] = a
            torch.mul(a.unsqueeze(3), h.unsqueeze(2), out=outer)
            of_alpha.addcmul_(outer, plastic)
            of_plastic.addcmul_(self._alpha, outer)
            weights = torch.mul(self._alpha, plastic, out=self._scaled)
            of_h = torch.baddbmm(of_old + _before(weights, a), a, self._v)
        flat, of_reads = before.flatten(1, 2), of_modulation.flatten(1, 2)
        product = flat.mT @ self._seen[:, :steps].flatten(1, 2)
        return {
            "task.w": product[..., :n],
            "task.v": product[..., n:],
            "task.b": flat.sum(1),
            "task.alpha": of_alpha.sum(1),
            "task.modulation.weight": (of_reads.mT @ self.hidden().flatten(1, 2)).squeeze(1),
            "task.modulation.bias": of_reads.sum((1, 2)),
        }


class RetroactiveTape(HebbianTape):
    """The tape of `retroactive_step`, which also keeps the trace of every step, [run, batch, hidden, hidden]."""

    def __init__(self, params: Params, steps: int, batch: int) -> None:
        super().__init__(params, steps, batch)
        self._eta = params["task.eta"].view(-1, 1, 1)
        self._trace = [torch.empty_like(each) for each in self._plastic]  # E before each step
        self._trace[0].zero_()
        self._of_trace, self._of_eta = torch.zeros_like(self._scaled), torch.zeros_like(params["task.eta"])

    def _learn(self, t: int, new: Tensor, h: Tensor) -> None:
        modulation, trace, eta = self._modulation[:, t].unsqueeze(3), self._trace[t], self._eta
        torch.addcmul(self._plastic[t], modulation, trace, out=self._plastic[t + 1]).clamp_(-1, 1)
        torch.mul(trace, 1 - eta.unsqueeze(3), out=self._trace[t + 1])
        self._trace[t + 1].addcmul_((eta * new).unsqueeze(3), h.unsqueeze(2))

    def _unlearn(self, t: int, grad: Tensor, new: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        trace, of_trace, eta = self._trace[t], self._of_trace, self._eta
        of_new, of_old = _times(of_trace, h), _before(of_trace, new)
        self._of_eta += (new * of_new).sum((1, 2)) - (of_trace * trace).sum((1, 2, 3))
        of_modulation = (grad * trace).sum((2, 3)).unsqueeze(2)
        of_trace.mul_(1 - eta.unsqueeze(3)).addcmul_(self._modulation[:, t].unsqueeze(3), grad)
        return eta * of_new, eta * of_old, of_modulation

    def backward(self, grad: Tensor) -> Params:
        return super().backward(grad) | {"task.eta": self._of_eta}


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Matrix times vector. [run, batch, n, m], [run, batch, m] -> [run, batch, n]

    For a stack of small matrices this is several times as fast as PyTorch's product with a column.
    """
    return (matrices * vectors.unsqueeze(2)).sum(3)


def _before(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Transposed matrix times vector. [run, batch, n, m], [run, batch, n] -> [run, batch, m]"""
    return torch.bmm(vectors.flatten(0, 1).unsqueeze(1), matrices.flatten(0, 1)).view(*vectors.shape[:2], -1)


class WarpTape:
    """The tape of `warp_step`. Gates are stored in the order i, f, g, o; diagonals as u1 of [x, h], u2_x, u2_h, u_b.

    The views of all steps are made at the start, since at this size slicing takes as long as arithmetic. The backward
    pass overwrites the values that it has read, since memory outside of the processor's caches would be slower.
    """

    def __init__(self, params: Params, steps: int, batch: int) -> None:
        self._params, self._t = params, 0
        w, v, b = (params[f"task.{name}"] for name in "wvb")
        lstm, project = params["warp.lstm.weight"], params["warp.project"]
        (runs, m, n), k = w.shape, project.shape[2]
        self._sizes = m, n, k
        twice = lstm.new_ones(4 * k)
        twice[2 * k : 3 * k] = 2  # g is a tanh, computed by a sigmoid of the doubled argument (see tanh_)
        self._lstm = (twice[:, None] * lstm).mT.contiguous()
        self._lstm_bias = (twice * params["warp.lstm.bias"])[:, None]
        self._project, self._w, self._v = (2 * project).mT.contiguous(), 2 * w.mT, 2 * v.mT
        self._bias, self._minus_one = 2 * b[:, None], lstm.new_tensor(-1.0)

        def empty(width: int, more: int = 0) -> Tensor:
            return lstm.new_empty(runs, steps + more, batch, width)

        self._seen, self._c = empty(n + m + k, 1), empty(k, 1)  # [x_t, h_{t-1}, z_{t-1}], c_{t-1}
        self._seen[:, 0], self._c[:, 0] = 0, 0
        self._gates, self._tanh_c, self._u = empty(4 * k), empty(k), empty(n + 4 * m)
        self._scaled, self._gradient = empty(n + m), empty(2 * m)  # u1 * [x, h]; gradients of W u1_x x, V u1_h h
        self._products: list[tuple[Tensor, Tensor]] = []  # 2 W u1_x x and 2 V u1_h h
        all_, h = slice(None), slice(n, n + m)
        self._outer = _views(
            (self._seen, [all_, slice(n), slice(n + m), h, slice(n + m, None)]),
            (self._c, [all_]),
        )
        self._inner = _views(
            (self._gates, [all_, *(slice(gate * k, gate * k + k) for gate in range(4))]),
            (self._tanh_c, [all_]),
            (self._u, [all_, slice(n + m), slice(n), *(slice(n + part * m, n + part * m + m) for part in range(4))]),
            (self._scaled, [all_, slice(n), slice(n, None)]),
            (self._gradient, [slice(m), slice(m, None)]),
        )

    def step(self, x: Tensor) -> Tensor:
        t, minus_one = self._t, self._minus_one
        seen, seen_x, seen_xh, _, _, c = self._outer[t]
        _, _, _, h, z, new_c = self._outer[t + 1]
        gates, i, f, g, o, tanh_c, u, u1, _, _, u2_x, u2_h, u_b, scaled, scaled_x, scaled_h, _, _ = self._inner[t]
        seen_x.copy_(x)
        torch.sigmoid(torch.baddbmm(self._lstm_bias, seen, self._lstm), out=gates)
        torch.add(minus_one, g, alpha=2, out=g)
        torch.mul(f, c, out=new_c).addcmul_(i, g)
        torch.mul(o, tanh_(new_c + new_c, tanh_c, minus_one), out=z)
        tanh_(torch.bmm(z, self._project), u, minus_one)
        torch.mul(seen_xh, u1, out=scaled)
        w_x, v_h = torch.bmm(scaled_x, self._w), torch.bmm(scaled_h, self._v)
        self._products.append((w_x, v_h))
        self._t = t + 1
        return tanh_(torch.mul(u_b, self._bias).addcmul_(u2_x, w_x).addcmul_(u2_h, v_h), h, minus_one)

    def hidden(self) -> Tensor:
        m, n, _ = self._sizes
        return self._seen[:, 1 : self._t + 1, :, n : n + m].contiguous()

    def backward(self, grad: Tensor) -> Params:
        """As `Tape.backward`. It can be called once, since gradients of gates and diagonals overwrite their values."""
        (m, n, k), one, zero = self._sizes, -self._minus_one, torch.zeros_like(self._minus_one)
        w, v = self._params["task.w"], self._params["task.v"]
        lstm, project = self._params["warp.lstm.weight"][..., n:].contiguous(), self._params["warp.project"]
        d_h, d_z, d_c = (grad.new_zeros(len(grad), grad.shape[2], width) for width in (m, k, k))
        d_b, of_h = torch.zeros_like(d_h), grad.unbind(1)
        for t in reversed(range(self._t)):
            _, x, _, old_h, _, old_c = self._outer[t]
            h, (w_x, v_h) = self._outer[t + 1][3], self._products[t]
            gates, i, f, g, o, tanh_c, u, _, u1_x, u1_h, u2_x, u2_h, u_b, _, _, _, of_w, of_v = self._inner[t]
            # h = tanh(a) and a = u2_x (W u1_x x) + u2_h (V u1_h h) + u_b b
            a = d_h.add_(of_h[t]).mul_(torch.addcmul(one, h, h, value=-1))
            d_b.addcmul_(a, u_b)
            slope = torch.addcmul(one, u, u, value=-1)
            d_scaled_x = torch.bmm(torch.mul(a, u2_x, out=of_w), w)
            d_scaled_h = torch.bmm(torch.mul(a, u2_h, out=of_v), v)
            d_h = d_scaled_h * u1_h
            # u = tanh(P z). Its gradient is doubled, since the stored products are doubled.
            torch.addcmul(zero, d_scaled_x, x, value=2, out=u1_x)
            torch.addcmul(zero, d_scaled_h, old_h, value=2, out=u1_h)
            torch.mul(a, w_x, out=u2_x)
            torch.mul(a, v_h, out=u2_h)
            torch.mul(a, self._bias, out=u_b)
            d_z = torch.baddbmm(d_z, u.mul_(slope), project, alpha=0.5)
            # z = o tanh(c) and c = f c' + i g
            d_c.addcmul_(d_z * o, torch.addcmul(one, tanh_c, tanh_c, value=-1))
            slope = torch.addcmul(gates, gates, gates, value=-1)
            torch.addcmul(one, g, g, value=-1, out=slope[..., 2 * k : 3 * k])
            of_i, of_c = d_c * g, d_c * f
            torch.mul(d_c, i, out=g)
            torch.mul(d_c, old_c, out=f)
            torch.mul(d_z, tanh_c, out=o)
            i.copy_(of_i)
            of_seen = torch.bmm(gates.mul_(slope), lstm)
            d_h.add_(of_seen[..., :m])
            d_z, d_c = of_seen[..., m:], of_c
        gates, of_products, scaled, seen, u = (
            part[:, : self._t].flatten(1, 2)
            for part in (self._gates, self._gradient, self._scaled, self._seen, self._u)
        )
        z = self._seen[:, 1 : self._t + 1, :, n + m :].flatten(1, 2)
        return {
            "task.w": of_products[..., :m].mT @ scaled[..., :n],
            "task.v": of_products[..., m:].mT @ scaled[..., n:],
            "task.b": d_b.sum(1),
            "warp.lstm.weight": gates.mT @ seen,
            "warp.lstm.bias": gates.sum(1),
            "warp.project": (u.mT @ z) / 2,
        }


def _views(*parts: tuple[Tensor, list[slice]]) -> list[tuple[Tensor, ...]]:
    """For each step, views of the given columns of each tensor, [run, time, batch, width]."""
    return list(zip(*(tensor[..., part].unbind(1) for tensor, columns in parts for part in columns), strict=True))


# ---------------------------------------------------------------- agents


def task_params(inputs: int, hidden: int, actions: int, stream: torch.Generator) -> Params:
    """Initial task parameters of an agent: W and V orthogonal, b zero, and PyTorch's default weights for the heads."""
    bound = hidden**-0.5
    weight, bias = (torch.empty(*shape).uniform_(-bound, bound, generator=stream) for shape in _heads(hidden, actions))
    return {
        "task.w": nn.init.orthogonal_(torch.empty(hidden, inputs), generator=stream),
        "task.v": nn.init.orthogonal_(torch.empty(hidden, hidden), generator=stream),
        "task.b": torch.zeros(hidden),
        "task.head.weight": weight,  # a row for the logit of each action, and the last row for the value
        "task.head.bias": bias,
    }


def _heads(hidden: int, actions: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (actions + 1, hidden), (actions + 1,)


def rnn(inputs: int, hidden: int, actions: int) -> Cell:
    """The plain RNN ("learning to reinforcement learn", L2RL)."""
    return Cell(lambda stream: task_params(inputs, hidden, actions, stream), RnnTape)


def tnets_rnn(inputs: int, hidden: int, actions: int) -> Cell:
    """The RNN with the linear warps of T-Nets, which are initially the identity."""

    def init(stream: torch.Generator) -> Params:
        warps = {f"warp.{name}": torch.eye(hidden) for name in ("h", "x", "b")}
        return task_params(inputs, hidden, actions, stream) | warps

    return Cell(init, TnetsTape)


def warp_rnn(inputs: int, hidden: int, actions: int, warp_hidden: int) -> Cell:
    """The RNN with diagonal warps, which an LSTM computes at every step. The LSTM has PyTorch's default weights."""

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
    """The RNN with plastic weights, whose modulation the network computes itself."""

    def init(stream: torch.Generator) -> Params:
        bound = hidden**-0.5
        params = task_params(inputs, hidden, actions, stream) | {
            "task.alpha": 0.01 * torch.rand(hidden, hidden, generator=stream),
            "task.modulation.weight": torch.empty(hidden).uniform_(-bound, bound, generator=stream),
            "task.modulation.bias": torch.empty(()).uniform_(-bound, bound, generator=stream),
        }
        return params | ({"task.eta": torch.tensor(0.01)} if retroactive else {})

    return Cell(init, RetroactiveTape if retroactive else HebbianTape)
