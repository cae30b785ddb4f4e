"""Writes the golden losses of tests/torch.rs: a tiny Llama trained for four steps with PyTorch.

    python make_torch_losses.py        # writes tiny.safetensors and losses.json beside itself

Needs torch and safetensors; made with torch 2.13.0 on a CPU. Two runs start from the same weights:

next_token   the plain decoder of two blocks
heads        n = 3 parallel layer heads: the second block is head 1, heads 2 and 3 are blocks of their own on the output of
             the first block; the loss is the plain sum of the three means

Each entry holds, for each of the four steps, the mean loss per depth before the update and the length of the whole gradient.
"""
import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

VOCABULARY, WIDTH, BLOCKS, HEADS, KV_HEADS, FFN, EPSILON = 97, 32, 2, 4, 2, 48, 1e-5
HEAD_DIM = WIDTH // HEADS
BATCH, LENGTH, DEPTHS, STEPS = 2, 17, 3, 4
SETTINGS = dict(lr=3e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)


def initial_weights():
    generator = torch.Generator().manual_seed(20)

    def normal(*shape, deviation=0.1):
        return torch.randn(*shape, generator=generator) * deviation

    weights = {"model.embed_tokens.weight": normal(VOCABULARY, WIDTH)}
    prefixes = [f"model.layers.{layer}" for layer in range(BLOCKS)] + [f"heads.{depth}" for depth in range(2, DEPTHS + 1)]
    for prefix in prefixes:
        kv = KV_HEADS * HEAD_DIM
        for name, shape in {
            "self_attn.q_proj": (WIDTH, WIDTH),
            "self_attn.k_proj": (kv, WIDTH),
            "self_attn.v_proj": (kv, WIDTH),
            "self_attn.o_proj": (WIDTH, WIDTH),
            "mlp.gate_proj": (FFN, WIDTH),
            "mlp.up_proj": (FFN, WIDTH),
            "mlp.down_proj": (WIDTH, FFN),
        }.items():
            weights[f"{prefix}.{name}.weight"] = normal(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}.{name}.weight"] = 1 + normal(WIDTH)
    weights["model.norm.weight"] = 1 + normal(WIDTH)
    return weights


def norm(x, gain):
    return F.rms_norm(x, (WIDTH,), gain, EPSILON)


def rope(x):
    """x: [batch, heads, position, HEAD_DIM], first half against second half, base 10000."""
    half = HEAD_DIM // 2
    frequencies = 10000.0 ** (-torch.arange(half).float() / half)
    angles = torch.arange(x.shape[2]).float()[:, None] * frequencies
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def block(weights, prefix, x):
    batch, length, _ = x.shape
    linear = lambda name, y: F.linear(y, weights[f"{prefix}.{name}.weight"])
    split = lambda y: y.view(batch, length, -1, HEAD_DIM).transpose(1, 2)
    y = norm(x, weights[f"{prefix}.input_layernorm.weight"])
    q, k, v = (split(linear(f"self_attn.{name}_proj", y)) for name in "qkv")
    attended = F.scaled_dot_product_attention(rope(q), rope(k), v, is_causal=True, enable_gqa=True)
    x = x + linear("self_attn.o_proj", attended.transpose(1, 2).reshape(batch, length, WIDTH))
    y = norm(x, weights[f"{prefix}.post_attention_layernorm.weight"])
    return x + linear("mlp.down_proj", F.silu(linear("mlp.gate_proj", y)) * linear("mlp.up_proj", y))


def losses_per_depth(weights, tokens, depths):
    inputs = tokens[:, :-1]
    embedding = weights["model.embed_tokens.weight"]
    trunk = block(weights, "model.layers.0", F.embedding(inputs, embedding))
    losses = []
    for depth in range(1, depths + 1):
        state = block(weights, "model.layers.1" if depth == 1 else f"heads.{depth}", trunk)
        logits = F.linear(norm(state, weights["model.norm.weight"]), embedding)
        # Position t predicts token t + depth; the last depth - 1 positions have no such token.
        kept = logits[:, : inputs.shape[1] + 1 - depth]
        losses.append(F.cross_entropy(kept.reshape(-1, VOCABULARY), tokens[:, depth:].reshape(-1)))
    return losses


def four_steps(initial, tokens, depths):
    used = {name: value for name, value in initial.items() if depths > 1 or not name.startswith("heads.")}
    weights = {name: value.clone().requires_grad_() for name, value in used.items()}
    optimiser = torch.optim.AdamW(weights.values(), **SETTINGS)
    rows = []
    for _ in range(STEPS):
        losses = losses_per_depth(weights, tokens, depths)
        optimiser.zero_grad()
        sum(losses).backward()
        length = torch.sqrt(sum((w.grad.double() ** 2).sum() for w in weights.values()))
        rows.append(dict(loss=[loss.item() for loss in losses], gradient_norm=length.item()))
        optimiser.step()
    return rows


def main():
    folder = pathlib.Path(__file__).parent
    initial = initial_weights()
    tokens = torch.randint(0, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(21))
    save_file(initial, folder / "tiny.safetensors")
    golden = dict(
        tokens=tokens.tolist(),
        next_token=four_steps(initial, tokens, 1),
        heads=four_steps(initial, tokens, DEPTHS),
    )
    (folder / "losses.json").write_text(json.dumps(golden, indent=1) + "\n")


main()
