"""The fronts take any module: recurrent, checkpointed, compiled, with attention, batch norm, dropout, tied weights."""

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import leapwarp
from leapwarp import optim
from leapwarp.learners import maml, warp_leap_online
from leapwarp.trees import alone

DOUBLE = torch.float64


class Recurrent(nn.Module):
    """Dict inputs, an LSTM, control flow, dropout between, a warp deep inside, and a hook on a gradient."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.blocks = nn.ModuleList([nn.ModuleDict({"cell": nn.LSTM(4, 4, batch_first=True), "warp": nn.Linear(4, 4)})])
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(4, 3)
        self.head.weight.register_hook(lambda grad: 0.5 * grad)

    def forward(self, item):
        h = self.embed(item["tokens"])
        for block in self.blocks:
            h = torch.tanh(block["warp"](block["cell"](h)[0]))
        last = h[:, -1] if item["tokens"].float().mean().item() > 1 else h.mean(1)
        return self.head(self.drop(last))


class Attention(nn.Module):
    """A transformer layer and a low-rank warp. The embeddings of input and output are tied."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.body = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.warp = nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 8))
        self.out = nn.Linear(8, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, item):
        h = self.body(self.embed(item["tokens"]))
        return self.out(h + self.warp(h)).mean(1)


class Images(nn.Module):
    """Convolutions with batch norm, of which the first is frozen by eval(), and a checkpointed block."""

    def __init__(self, checkpointed=False):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
        self.second = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Tanh())
        self.warp, self.head, self.checkpointed = nn.Conv2d(3, 3, 1), nn.Linear(3, 3), checkpointed
        self.frozen = nn.Linear(3, 3)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        h = self.first(x)
        inside = lambda h: self.warp(self.second(h))  # noqa: E731
        h = checkpoint(inside, h, use_reentrant=self.checkpointed == "reentrant") if self.checkpointed else inside(h)
        return self.head(self.frozen(h.mean((2, 3))))


class Twice(nn.Module):
    """A layer and a warp that have two names each, batch norm in a warp, and a buffer that counts calls."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.warp = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.body = nn.ModuleList([self.first, self.warp, self.first, self.warp])
        self.head = nn.Linear(4, 3)
        self.register_buffer("calls", torch.tensor(1.0))

    def forward(self, x):
        self.calls = self.calls + 1  # another tensor each time
        for part in self.body:
            x = torch.tanh(part(x)) * self.calls.log()
        return self.head(x)


class Sparse(nn.Module):
    """An embedding whose gradient is sparse and whose rows are scaled in place, and weights with spectral norm."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4, sparse=True, max_norm=1.0)
        self.body = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        self.warp, self.head = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 3)

    def forward(self, item):
        return self.head(torch.tanh(self.warp(torch.tanh(self.body(self.embed(item["tokens"]).mean(1))))))


def text(number):
    stream = torch.Generator().manual_seed(number)
    tokens = torch.randint(7, (5, 6), generator=stream)
    return {"tokens": tokens}, tokens[:, 0] % 3


def images(number):
    stream = torch.Generator().manual_seed(number)
    y = torch.arange(6) % 3
    return torch.randn(6, 1, 7, 7, generator=stream, dtype=DOUBLE) + y[:, None, None, None], y


def points(number):
    stream = torch.Generator().manual_seed(number)
    y = torch.arange(6) % 3
    return torch.randn(6, 4, generator=stream, dtype=DOUBLE) + y[:, None], y


def made(build, seed=0):
    torch.manual_seed(seed)
    return build().double()


def loss_of(net):
    return lambda batch: F.cross_entropy(net(batch[0]), batch[1])


def train(
    net,
    data,
    order=2,
    replay=None,
    lengths=(3, 1, 2),
    optimizer=torch.optim.Adam,
    rate=0.01,
    choices=None,
    own=False,
    called=None,
):
    """Train one meta-batch with tasks of several lengths. -> gradients of the meta-parameters by name, the result"""
    loss = loss_of(net if called is None else called)
    chosen = choices or {"warp": ["*.warp.*"]}
    meta = leapwarp.WarpGrad(net, loss, inner=0.1, order=order, replay=replay, **chosen)
    for t, steps in enumerate(lengths):
        with meta.task() as task:
            inner = optimizer(meta.task_parameters(), rate)
            for k in range(steps):
                inner.zero_grad()
                batch, other = data(10 * t + k), data(10 * t + k + 5)
                task.backward(loss(batch), other, batch if replay or own else None)
                inner.step()
            task.finish(loss(data(10 * t + 9)))
    summed = {}
    for _ in meta.replay(eta=1000) if replay else ():
        summed = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    seen = meta.backward()
    grads = {
        name.replace("_orig_mod.", ""): leaf.grad for name, leaf in net.named_parameters() if leaf.grad is not None
    }
    return {name.replace("_orig_mod.", ""): leaf for name, leaf in summed.items()} | grads, seen


def in_places(net, tensors, function):
    """Call `function` with other tensors in all places of a module's parameters, by hand."""
    own = dict(net.named_parameters())
    into = {id(own[name]): leaf for name, leaf in tensors.items()}
    found = [(m._parameters, key, leaf) for m in net.modules() for key, leaf in m._parameters.items()]
    try:
        for place, key, leaf in found:
            place[key] = into.get(id(leaf), leaf)
        return function()
    finally:
        for place, key, leaf in found:
            place[key] = leaf


def slow_warp_gradient(net, data, lengths=(3, 1, 2), rate=0.01, optimizer=torch.optim.Adam):
    """Equation 3 at every point of the path, with one graph for everything."""
    start = copy.deepcopy(net.state_dict())
    loss, total = loss_of(net), 0
    warps = {n: p for n, p in net.named_parameters() if "warp" in n}
    for t, steps in enumerate(lengths):
        theta = [p for n, p in net.named_parameters() if n not in warps and p.requires_grad]
        inner = optimizer(theta, rate)
        for k in range(steps):
            names = [n for n, p in net.named_parameters() if n not in warps and p.requires_grad]
            now = copy.deepcopy(net.state_dict())
            value = loss(data(10 * t + k))
            grads = torch.autograd.grad(value, theta, create_graph=True, allow_unused=True)
            stepped = {n: p - 0.1 * g for n, p, g in zip(names, theta, grads, strict=True) if g is not None}
            other = in_places(net, stepped, lambda t=t, k=k: loss(data(10 * t + k + 5)))
            found = torch.autograd.grad(other, list(warps.values()))
            total = [g.clone() for g in found] if total == 0 else [a + g for a, g in zip(total, found, strict=True)]
            net.load_state_dict(now)
            net.zero_grad()
            loss(data(10 * t + k)).backward()
            inner.step()
        net.load_state_dict(start)
    return dict(zip(warps, total, strict=True))


BUILD = {
    "recurrent": (Recurrent, text),
    "images": (Images, images),
    "attention": (Attention, text),
    "names": (Twice, points),
    "sparse": (Sparse, text),
}


@pytest.mark.parametrize("kind", BUILD)
def test_the_exact_gradient_is_that_of_equation_3(kind):
    build, data = BUILD[kind]
    how = {"optimizer": torch.optim.SGD} if kind == "sparse" else {}
    net = made(build)
    before = copy.deepcopy(net.state_dict())
    ours, seen = train(net, data, **how)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        slow = slow_warp_gradient(made(build), data, **how)
    for name, leaf in slow.items():
        torch.testing.assert_close(ours[name], leaf, rtol=1e-8, atol=1e-10)
    assert seen["tasks"] == 3 and any(leaf.abs().max() > 1e-4 for leaf in slow.values())
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", BUILD)
def test_the_replay_of_all_points_is_the_online_gradient(kind):
    """Each point is replayed with its own buffers: the vectors of spectral norm, or a count."""
    build, data = BUILD[kind]
    how = {"optimizer": torch.optim.SGD} if kind == "sparse" else {}
    online, _ = train(made(build), data, own=True, **how)
    offline, _ = train(made(build), data, replay=50, **how)
    assert online.keys() == offline.keys()
    torch.testing.assert_close(offline, online, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("replay", [None, 50])
def test_checkpointed_parts_change_nothing(replay):
    plain, _ = train(made(Images), images, replay=replay)
    saved, _ = train(made(lambda: Images(checkpointed=True)), images, replay=replay)
    torch.testing.assert_close(saved, plain, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("order", "replay"), [(2, None), (1, None), (0, None), (2, 50)])
def test_a_checkpoint_that_hides_its_parameters_is_refused(order, replay):
    """PyTorch leaves their gradients out without a message."""
    with pytest.raises(RuntimeError, match="checkpointed with use_reentrant=True, which hides its parameters"):
        train(made(lambda: Images(checkpointed="reentrant")), images, order, replay)


@pytest.mark.parametrize(("order", "replay"), [(2, None), (1, None), (2, 50)])
def test_a_compiled_module_gives_the_same(order, replay):
    torch._dynamo.reset()
    plain, _ = train(made(Images), images, order, replay)
    net = torch.compile(made(Images), backend="aot_eager")
    if order == 2 and replay is None:
        with pytest.warns(UserWarning, match="has no second derivative: inside tasks it runs uncompiled"):
            ours, _ = train(net, images, order, replay)
        inside = made(Images)  # the front has the module, and the loop its compiled version
        again, _ = train(inside, images, order, replay, called=torch.compile(inside, backend="aot_eager"))
        torch.testing.assert_close(again, plain, rtol=1e-8, atol=1e-10)
    else:
        ours, _ = train(net, images, order, replay)
    torch.testing.assert_close(ours, plain, rtol=1e-8, atol=1e-10)


def test_frozen_parts_stay_and_buffers_begin_every_task_as_they_were():
    net = made(Images)
    net.first[1].eval()
    before = copy.deepcopy(net.state_dict())
    grads, _ = train(net, images)
    assert not any(name.startswith("frozen") for name in grads)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert net.second[1].training and not net.first[1].training
    assert all(leaf.requires_grad != name.startswith("frozen") for name, leaf in net.named_parameters())


class Carries(nn.Module):
    """Carries a state from call to call in a plain attribute, and scales rows of an embedding in place."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 4, max_norm=0.5)
        self.body, self.warp, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.state = torch.zeros(6, 4, dtype=DOUBLE)

    def forward(self, x):
        h = torch.tanh(self.body(x) + self.state + self.words((10 * x[:, 0]).long() % 50))
        self.state = h.detach()
        return self.head(self.warp(h))


def test_the_objective_leaves_what_a_call_of_the_module_changes_to_the_loop():
    found = []
    for front in (True, False):
        net = made(Carries)
        meta = leapwarp.WarpGrad(net, loss_of(net), "warp", 0.1) if front else None
        theta = [leaf for name, leaf in net.named_parameters() if "warp" not in name]
        inner = torch.optim.SGD(theta, 0.1)
        with meta.task() if meta else nullcontext() as task:
            for k in range(3):
                inner.zero_grad()
                loss = loss_of(net)(points(k))
                task.backward(loss, points(k + 5), points(k + 9)) if task else loss.backward()
                inner.step()
            found.append([*(leaf.detach().clone() for leaf in net.parameters()), net.state])
            task.finish(loss_of(net)(points(4))) if task else None
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_buffer_from_inference_mode_begins_every_task_too():
    """Nothing can be written into it outside of that mode."""
    net = made(Twice)
    before = {}
    for _ in range(2):
        with torch.inference_mode():
            net(points(0)[0])
        before = copy.deepcopy(net.state_dict())
        train(net, points, lengths=(1,))
        assert net.calls.item() == before["calls"].item()
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


class Once(torch.autograd.Function):
    """A cube whose gradient has no derivative."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, grad):
        return grad * 3 * context.saved_tensors[0] ** 2


class Cubes(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.warp, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.warp(Once.apply(self.body(x))))


@pytest.mark.parametrize("replay", [None, 50])
def test_a_second_derivative_that_pytorch_would_leave_out_is_refused(replay):
    """Asked for some inputs only, autograd passes over a gradient that is marked once_differentiable."""
    with pytest.raises(RuntimeError, match="marked once_differentiable, and the second .* Use order=1"):
        train(made(Cubes), points, replay=replay, lengths=(1,))
    train(made(Cubes), points, 1, replay, lengths=(1,))
    model = leapwarp.lift(made(Cubes))
    tasks = leapwarp.stack_tasks([points(0)], 4, 5, torch.Generator())
    for learner in (
        warp_leap_online(leapwarp.supervised(model), optim.sgd(0.1), optim.sgd(0.1), optim.sgd(0.1), 1),
        maml(leapwarp.supervised(model), optim.sgd(0.1), optim.sgd(0.1), 1),
    ):
        state = learner.init(alone(model.init(torch.Generator())))
        with pytest.raises(RuntimeError, match="marked once_differentiable, and the second derivative is needed"):
            learner.step(state, tasks, [torch.Generator()])


class Kept(nn.Linear):
    """Keeps its input as a buffer, and has an expanded, a sparse and a growing one, and one from the first input."""

    def __init__(self):
        super().__init__(4, 3)
        self.register_buffer("last", torch.zeros(6, 4))
        self.register_buffer("ones", torch.ones(1).expand(4))
        self.register_buffer("mix", torch.eye(6).to_sparse())
        self.register_buffer("calls", torch.zeros(0))
        self.register_buffer("first", None)

    def forward(self, x):
        self.last = x
        self.calls.resize_(len(self.calls) + 1).zero_()
        self.first = x if self.first is None else self.first
        return super().forward(torch.sparse.mm(self.mix, x * self.ones))


def test_a_buffer_comes_back_into_its_place_and_no_batch_is_written_into():
    net, (x, y) = Kept(), points(0)
    x, meta = x.float(), leapwarp.Leap(net)
    before, last = x.clone(), net.last
    with meta.task() as task:
        task.backward(F.cross_entropy(net(x), y))
        torch.optim.SGD(meta.task_parameters(), 0.1).step()
        task.finish(F.cross_entropy(net(x), y))
    assert torch.equal(x, before) and net.last is last and not last.any()
    assert not len(net.calls) and net.first is None


def test_the_frozen_average_of_batch_norm_takes_part():
    """A part in eval() mode normalises by its running averages, on the path and in the objective."""
    grads = []
    for mean in (0.0, 3.0):
        net = made(Images)
        net.second[1].eval()
        net.second[1].running_mean.fill_(mean)
        grads.append(train(net, images)[0]["warp.weight"])
        assert net.second[1].running_mean.tolist() == [mean] * 3
    assert not torch.allclose(*grads)


def test_dropout_follows_the_global_stream_and_repeats_with_it():
    found = []
    for seed in (0, 0, 1):
        net = made(lambda: Recurrent(0.5))
        torch.manual_seed(seed)
        found.append(train(net, text)[0]["head.weight"])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_tied_weights_are_one_parameter():
    net = made(Attention)
    grads, _ = train(net, text)
    assert net.out.weight is net.embed.weight and "embed.weight" in grads and "out.weight" not in grads


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_is_close_to_full(dtype):
    """With autocast and a GradScaler, the gradients of the loop are scaled."""
    grads = []
    for mixed in (False, True):
        net = made(Images).float()

        def mixed_loss(number, net=net, mixed=mixed):
            x, y = images(number)
            with torch.autocast("cpu", dtype, enabled=mixed):
                return F.cross_entropy(net(x.float()), y)

        scaler = torch.amp.GradScaler("cpu", enabled=mixed, init_scale=64.0)
        meta = leapwarp.WarpGrad(net, mixed_loss, warp="*.warp.*", inner=0.1)
        with meta.task() as task:
            inner = torch.optim.SGD(meta.task_parameters(), 0.1)
            for k in range(3):
                inner.zero_grad()
                task.backward(mixed_loss(k), k + 5, scaler=scaler)
                scaler.unscale_(inner)
                nn.utils.clip_grad_norm_(meta.task_parameters(), 1.0)
                scaler.step(inner)
                scaler.update()
            task.finish(mixed_loss(9))
        meta.backward()
        grads.append(torch.cat([leaf.grad.flatten() for leaf in meta.warp_parameters()]))
    assert F.cosine_similarity(*grads, dim=0) > 0.99
    assert 0.9 < grads[1].norm() / grads[0].norm() < 1.1


def test_a_point_at_which_the_scaler_makes_no_step_is_passed_over():
    found = []
    for burst in (False, True):
        net = made(lambda: nn.Linear(2, 1)).float()
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        meta = leapwarp.Leap(net)
        with meta.task() as task:
            inner = torch.optim.SGD(meta.task_parameters(), 0.1)
            for k in range(3 + burst):
                inner.zero_grad()
                loss = net(torch.ones(3, 2)).square().mean()
                if burst and k == 1:
                    scaler.scale(loss).backward()
                    net.weight.grad.fill_(torch.inf)
                    task.step(loss, scaler)
                else:
                    task.backward(loss, scaler)
                scaler.step(inner)
                scaler.update()
            task.finish(net(torch.ones(3, 2)).square().mean())
        meta.backward()
        found.append([leaf.grad for leaf in net.parameters()])
    torch.testing.assert_close(*found)
