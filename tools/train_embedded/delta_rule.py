"""The gated delta rule, twice: token by token as it is defined, and in chunks as a CPU likes to train it.

For a value head with state S [dk x dv], decay exp(g) and step size b:
    S = exp(g) S;  d = b (v - S^T k);  S = S + k d^T;  o = S^T q
Shapes here: q, k [batch, heads, time, dk], v [batch, heads, time, dv], g, b [batch, heads, time].
"""

import torch

CHUNK = 64


def sequential(q, k, v, g, b):
    """The definition. Slow; the yardstick for the form below."""
    state = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])
    outputs = []
    for t in range(q.shape[2]):
        key = k[:, :, t].unsqueeze(-1)
        state = state * g[:, :, t].exp()[..., None, None]
        delta = b[:, :, t].unsqueeze(-1) * (v[:, :, t] - (state * key).sum(-2))
        state = state + key * delta.unsqueeze(-2)
        outputs.append((state * q[:, :, t].unsqueeze(-1)).sum(-2))
    return torch.stack(outputs, 2)


def chunked(q, k, v, g, b, chunk=CHUNK):
    """The same function with matrix products inside a chunk; only the state crosses from chunk to chunk.

    With G the running sum of g inside a chunk, the deltas d_t of a chunk solve the unit lower-triangular system
        d_t + b_t sum_{s<t} exp(G_t - G_s) (k_t . k_s) d_s = b_t (v_t - exp(G_t) S0^T k_t),
    which is linear in S0: solve once for the v part and the k part, then walk the chunks.
    """
    batch, heads, time, dk = q.shape
    dv = v.shape[-1]
    count = time // chunk
    assert count * chunk == time, "the training windows are whole chunks"
    split = lambda x: x.reshape(batch * heads, count, chunk, *x.shape[3:])
    q, k, v, g, b = map(split, (q, k, v, g, b))

    total = g.cumsum(-1)
    decay = torch.exp((total.unsqueeze(-1) - total.unsqueeze(-2)).tril()).tril()
    system = (b.unsqueeze(-1) * (k @ k.transpose(-1, -2)) * decay).tril(-1)
    right = b.unsqueeze(-1) * torch.cat([v, k * total.exp().unsqueeze(-1)], -1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    from_v, from_k = solved[..., :dv], solved[..., dv:]

    inside = (q @ k.transpose(-1, -2)) * decay
    q_in = q * total.exp().unsqueeze(-1)
    k_out = (k * (total[..., -1:] - total).exp().unsqueeze(-1)).transpose(-1, -2)
    keep = total[..., -1].exp()[..., None, None]

    state = q.new_zeros(batch * heads, dk, dv)
    outputs = []
    for i in range(count):
        delta = from_v[:, i] - from_k[:, i] @ state
        outputs.append(q_in[:, i] @ state + inside[:, i] @ delta)
        state = keep[:, i] * state + k_out[:, i] @ delta
    return torch.stack(outputs, 1).reshape(batch, heads, time, dv)


def check():
    """Both forms agree, values and gradients, on random inputs with strong and with weak decay."""
    torch.manual_seed(1)
    for scale in (0.01, 1.0, 8.0):
        q, k = (torch.nn.functional.normalize(torch.randn(2, 3, 192, 32), dim=-1) for _ in range(2))
        v, b = torch.randn(2, 3, 192, 48), torch.rand(2, 3, 192)
        g = -scale * torch.rand(2, 3, 192)
        inputs = [x.requires_grad_() for x in (q, k, v, g, b)]
        weight = torch.randn(2, 3, 192, 48)
        results = []
        for form in (sequential, chunked):
            out = form(*inputs)
            results.append([out, *torch.autograd.grad((out * weight).sum(), inputs)])
        for a, c in zip(*results):
            worst = (a - c).abs().max().item() / (a.abs().max().item() + 1e-9)
            assert worst < 1e-4, f"decay {scale}: the chunked form is off by {worst}"
    print("delta rule: the chunked form equals the sequential one")


if __name__ == "__main__":
    check()
