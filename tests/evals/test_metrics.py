import itertools
import json

import numpy as np
import pytest
import torch

import evals
import rsae
from evals.metrics.downstream import downstream, splice
from evals.metrics.intervention import intervention
from evals.metrics.probing import ProbeData, bootstrap, dense_baseline, pooled, probe, probe_data
from evals.metrics.reconstruction import largest_cosines, reconstruction
from evals.tasks import Example, Task, load_task, split_task
from rsae import AbsTopK, InputError, ReLU, SoftRational
from rsae.activations.hooks import HookPoint, activations_at, pad
from tests.rsae.helpers import random_sae

HOOK = "blocks.1.hook_resid_post"


def exact_sae(d_in: int, error: float = 0.0) -> ReLU:
    """x = relu(x) - relu(-x): an SAE that reconstructs exactly (times 1 - error)."""
    sae = ReLU(d_in, 2 * d_in)
    eye = torch.eye(d_in)
    sae.W_enc.data = torch.cat([eye, -eye], dim=1)
    sae.W_dec.data = torch.cat([eye, -eye], dim=0) * (1 - error)
    return sae


# --- reconstruction ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relu", "jump_relu", "top_k", "rational_jump_relu", "soft_rational"])
def test_reconstruction_is_its_definition(store, name):
    """Against a slow float64 reference, token by token."""
    sae = random_sae(name, store)
    got = reconstruction(sae, store)
    sae64 = sae.double()
    error, active, fired, rows = [], [], torch.zeros(sae.d_sae, dtype=torch.bool), []
    for x in torch.cat(list(store.blocks("heldout"))).double():
        z = sae64.encode(x[None])[0]
        error.append(
            sum((a - b) ** 2 for a, b in zip(sae64.decode(z[None])[0].tolist(), x.tolist(), strict=True))
        )
        active.append(sum(v != 0 for v in z.tolist()))
        fired |= z != 0
        rows.append(x)
    centred = torch.stack(rows) - torch.stack(rows).mean(0)
    assert got["mse"] == pytest.approx(np.mean(error), rel=1e-5)
    assert got["fvu"] == pytest.approx(np.mean(error) / centred.square().sum(1).mean().item(), rel=1e-5)
    assert got["r2"] == pytest.approx(1 - got["fvu"])
    assert got["l0"] == pytest.approx(np.mean(active), abs=0.02)
    assert got["alive"] == pytest.approx(fired.double().mean().item(), abs=1e-9)
    assert got["tokens"] == len(rows)
    x_hat = torch.stack([sae64(x) for x in rows])
    pairs = [(x.numpy(), y.detach().numpy()) for x, y in zip(rows, x_hat, strict=True)]
    cosine = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs]
    assert got["cosine"] == pytest.approx(np.mean(cosine), rel=1e-5)
    assert got["l2_ratio"] == pytest.approx(np.mean([np.sqrt(b @ b / (a @ a)) for a, b in pairs]), rel=1e-5)
    bias = sum(b @ b for _, b in pairs) / sum(a @ b for a, b in pairs)
    assert got["relative_bias"] == pytest.approx(bias, rel=1e-5)
    if isinstance(sae64, SoftRational):
        dense = [sae64.decode(sae64.soft_code(sae64.pre_activations(x)))[None] for x in rows]
        soft = (torch.cat(dense) - torch.stack(rows)).square().sum(1).mean().item()
        assert got["soft_mse"] == pytest.approx(soft, rel=1e-5)
        assert got["soft_l0"] == sae64.d_sae
        assert got["soft_fvu"] / got["fvu"] == pytest.approx(got["soft_mse"] / got["mse"])


def test_density_counts_every_latent_once(store):
    sae = random_sae("jump_relu", store)
    got = reconstruction(sae, store)
    z = sae.encode(torch.cat(list(store.blocks("heldout"))))
    density = (z != 0).double().mean(0)
    edges = got["density"]["up_to"]
    expected = [int((density == 0).sum())]
    expected += [int(((density > a) & (density <= b)).sum()) for a, b in itertools.pairwise(edges)]
    assert got["density"]["latents"] == expected
    assert sum(expected) == sae.d_sae


@pytest.mark.parametrize("name", ["sign_aware_gated", "abs_top_k", "gated"])
def test_bipolar_is_the_share_of_latents_that_use_both_signs(store, name):
    sae = random_sae(name, store).eval()
    z = sae.encode(torch.cat(list(store.blocks("heldout"))))
    both = ((z > 0).any(0) & (z < 0).any(0)).double().mean().item()
    got = reconstruction(sae, store, rows=64)
    assert got.get("bipolar", 0.0) == both
    rarer = torch.minimum((z > 0).double().mean(0), (z < 0).double().mean(0))
    assert got.get("two_way", 0.0) == (rarer > 0.1 * (z != 0).double().mean(0)).double().mean().item()
    assert (both > 0) == sae.signed


def test_decoder_redundancy_is_the_mean_largest_cosine(store):
    sae = random_sae("relu", store)
    rows = [d / np.sqrt(d @ d) for d in sae.W_dec.detach().double().numpy()]
    largest = [max(a @ b for j, b in enumerate(rows) if j != i) for i, a in enumerate(rows)]
    np.testing.assert_allclose(largest_cosines(sae.W_dec, rows=7).numpy(), largest, rtol=1e-4, atol=1e-6)
    assert reconstruction(sae, store)["decoder_redundancy"] == pytest.approx(np.mean(largest), rel=1e-5)


def test_shrinkage_is_seen(store):
    got = reconstruction(exact_sae(store.d_in, error=0.25), store)
    assert got["relative_bias"] == pytest.approx(0.75)
    assert got["l2_ratio"] == pytest.approx(0.75)
    assert got["cosine"] == pytest.approx(1)


@pytest.mark.parametrize("rows", [1, 7, 10_000])
@pytest.mark.parametrize("name", ["top_k", "soft_rational"])
def test_reconstruction_does_not_depend_on_the_batch(store, rows, name):
    sae = random_sae(name, store)
    one, other = reconstruction(sae, store), reconstruction(sae, store, rows=rows)
    assert other.pop("density") == one.pop("density")
    for key, value in one.items():
        assert other[key] == pytest.approx(value, rel=1e-6), key


def test_perfect_reconstruction(store):
    got = reconstruction(exact_sae(store.d_in), store)
    assert got["mse"] < 1e-12
    assert got["l0"] == store.d_in


# --- downstream --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, n).tolist() for n in (20, 9, 14, 5, 17)]


def test_exact_sae_costs_nothing(host, sequences):
    got = evals.downstream(exact_sae(host.d_model), host, sequences, HOOK)
    assert got["dce"] == pytest.approx(0, abs=1e-6)
    assert got["kl"] == pytest.approx(0, abs=1e-6)
    assert got["loss_recovered"] == pytest.approx(1, abs=1e-3)
    assert got["predictions"] == sum(len(s) - 2 for s in sequences)


def test_zero_sae_is_the_zero_ablation(host, sequences):
    got = evals.downstream(exact_sae(host.d_model, error=1.0), host, sequences, HOOK)
    assert got["ce"] == pytest.approx(got["ce_zero"], rel=1e-9)
    assert got["loss_recovered"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("hook", "module"),
    [(HOOK, ""), ("blocks.1.hook_mlp_out", "mlp"), ("blocks.1.hook_attn_out", "self_attn")],
)
def test_downstream_is_its_definition(host, sequences, hook, module):
    """Against whole forward passes of the host, one sequence at a time, with a hook of our own."""
    sae = exact_sae(host.d_model, error=0.3)
    clean_ce, ce, kl, agree = [], [], [], []
    for ids in sequences:
        tokens = torch.tensor([ids])

        def edit(_module, _args, output):
            first = output[0] if isinstance(output, tuple) else output
            out = first.clone()
            out[:, 1:] = sae(first[:, 1:])
            return (out, *output[1:]) if isinstance(output, tuple) else out

        with torch.no_grad():
            clean = host.model(input_ids=tokens).logits[0].double().log_softmax(-1)
            handle = host.blocks[1].get_submodule(module).register_forward_hook(edit)
            spliced = host.model(input_ids=tokens).logits[0].double().log_softmax(-1)
            handle.remove()
        for p in range(1, len(ids) - 1):
            clean_ce.append(-clean[p, ids[p + 1]].item())
            ce.append(-spliced[p, ids[p + 1]].item())
            agree.append(clean[p].argmax() == spliced[p].argmax())
            kl.append((clean[p].exp() * (clean[p] - spliced[p])).sum().item())
    got = downstream(sae, host, sequences, hook)
    assert got["ce_clean"] == pytest.approx(np.mean(clean_ce), rel=1e-5)
    assert got["ce"] == pytest.approx(np.mean(ce), rel=1e-5)
    assert got["kl"] == pytest.approx(np.mean(kl), rel=1e-3, abs=1e-7)
    assert got["top1"] == pytest.approx(np.mean(agree))


def test_the_dense_code_of_soft_is_spliced_in_beside_the_honest_one(host, store, sequences):
    sae = random_sae("soft_rational", store)
    got = downstream(sae, host, sequences, HOOK)
    assert isinstance(sae, SoftRational)
    sae.tau.zero_()  # now the honest code is the dense one
    dense = downstream(sae, host, sequences, HOOK)
    for key in ("ce", "kl", "top1", "loss_recovered", "dce"):
        assert got[f"soft_{key}"] == pytest.approx(dense[key], rel=1e-6), key
    assert got["soft_ce"] != got["ce"]


def test_downstream_does_not_depend_on_the_batch(host, sequences):
    sae = exact_sae(host.d_model, error=0.3)
    one, other = (downstream({"a": sae}, host, sequences, HOOK, batch=b)["a"] for b in (1, 5))
    for key in ("ce", "kl", "ce_zero"):
        assert one[key] == pytest.approx(other[key], rel=1e-5, abs=1e-7)


def test_the_prefix_runs_once_however_many_saes(host, sequences):
    runs = {"prefix": 0, "suffix": 0}
    handles = [
        host.blocks[0].self_attn.register_forward_hook(
            lambda *_: runs.__setitem__("prefix", runs["prefix"] + 1)
        ),
        host.blocks[2].self_attn.register_forward_hook(
            lambda *_: runs.__setitem__("suffix", runs["suffix"] + 1)
        ),
    ]
    downstream({str(i): exact_sae(host.d_model) for i in range(4)}, host, sequences, HOOK, batch=5)
    for handle in handles:
        handle.remove()
    assert runs == {"prefix": 1, "suffix": 6}  # clean, zero and four SAEs


def test_tokens_above_the_norm_limit_are_left_alone(host, sequences):
    tokens, mask = pad(sequences)
    norm = activations_at(host, HookPoint(1, "resid_post"), tokens, mask).norm(dim=-1)
    limit = norm[:, 1:][mask[:, 1:].bool()].median().item()
    spliced = splice(
        None, torch.ones(1, 3, 2) * torch.tensor([1.0, 5.0, 2.0])[:, None], torch.ones(1, 3), 3.0
    )
    assert spliced[0, :, 0].tolist() == [1.0, 5.0, 0.0]  # the first position and the long one keep theirs
    sae = exact_sae(host.d_model, error=0.9)
    some = downstream(sae, host, sequences, HOOK, norm_limit=limit)
    every = downstream(sae, host, sequences, HOOK)
    assert abs(some["dce"]) < abs(every["dce"])
    with pytest.raises(InputError, match="raise norm_limit"):
        downstream(sae, host, sequences, HOOK, norm_limit=0.0)


def test_the_hook_point_is_read_from_the_sae(host, store, sequences):
    sae = random_sae("top_k", store)
    with pytest.raises(InputError, match="which hook point"):
        downstream(sae, host, sequences)
    rsae.train(sae, store, rsae.TrainConfig(steps=2, batch=64))
    limit = store.manifest["excluded_norm"]
    assert downstream(sae, host, sequences) == downstream(sae, host, sequences, HOOK, norm_limit=limit)
    task = Task(
        "t", (["one two", "a longer text"], np.array([0, 1])), (["three", "four five"], np.array([1, 0]))
    )
    assert evals.sparse_probing(sae, host, task, k=(1,)).keys() == {"k1", "interval"}


def test_sequences_too_short(host):
    with pytest.raises(InputError, match="three tokens"):
        downstream(exact_sae(host.d_model), host, [[1, 2]], HOOK)


# --- sign-conditioned intervention -------------------------------------------------------------------------


def axes(d_in: int, size: float = 1.0) -> AbsTopK:
    """A signed latent an axis: z = size x, so that a latent's typical magnitude is `size` times that of x."""
    sae = AbsTopK(d_in, d_in, d_in).eval()
    sae.W_enc.data = size * torch.eye(d_in)
    sae.W_dec.data = torch.eye(d_in)
    return sae


def test_intervention_is_its_definition(host, sequences):
    """Against whole forward passes of the host, one sequence, latent and sign at a time."""
    sae, most = axes(host.d_model, 0.5), 3
    clean, x = {}, {}
    with torch.no_grad():
        for i, ids in enumerate(sequences):
            x[i] = activations_at(host, HookPoint.parse(HOOK, host), *pad([ids]))[0]
            clean[i] = host.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    z = 0.5 * torch.cat([x[i][1:-1] for i in x])
    log_p = torch.cat([clean[i][1:-1] for i in x])
    rarer = torch.minimum((z > 0).sum(0), (z < 0).sum(0))
    chosen = sorted(range(host.d_model), key=lambda f: -rarer[f])[:most]
    kl, changes, contexts = {1: [], -1: []}, {1: [], -1: []}, []
    for latent in chosen:
        on = {sign: (sign * z[:, latent]) > 0 for sign in (1, -1)}
        contexts.append(log_p[on[1]].mean(0) - log_p[on[-1]].mean(0))
        for sign in (1, -1):
            size = z[on[sign], latent].mean().item()

            def push(_module, _args, output, latent=latent, size=size):
                first = (output[0] if isinstance(output, tuple) else output).clone()
                first[:, 1:, latent] += size
                return (first, *output[1:]) if isinstance(output, tuple) else first

            handle = host.blocks[1].register_forward_hook(push)
            with torch.no_grad():
                logits = [host.model(input_ids=torch.tensor([ids])).logits[0] for ids in sequences]
            handle.remove()
            now = torch.cat([y[1:-1].double().log_softmax(-1) for y in logits])
            kl[sign].append((log_p.exp() * (log_p - now)).sum(1).mean().item())
            changes[sign].append((now - log_p).mean(0))
    got = intervention(sae, host, sequences, most, HOOK)
    assert got["dials"] == most
    assert got["eligible"] == int((rarer >= 5).sum())
    assert got["row_cosine"] == pytest.approx(-1)
    assert got["kl_plus"] == pytest.approx(np.mean(kl[1]), rel=1e-3)
    assert got["kl_minus"] == pytest.approx(np.mean(kl[-1]), rel=1e-3)
    both = zip(changes[1], changes[-1], strict=True)
    opposition = [np.corrcoef(a.numpy(), b.numpy())[0, 1] for a, b in both]
    assert got["opposition"] == pytest.approx(np.mean(opposition), rel=1e-3)
    agreement = np.array(
        [
            [np.corrcoef((a - b).numpy(), c.numpy())[0, 1] for c in contexts]
            for a, b in zip(changes[1], changes[-1], strict=True)
        ]
    )
    assert got["agreement"] == pytest.approx(agreement.diagonal().mean(), rel=1e-3)
    others = (agreement.sum() - agreement.trace()) / (most * (most - 1))
    assert got["agreement_others"] == pytest.approx(others, rel=1e-2, abs=1e-3)
    whole = intervention(sae, host, sequences, most, HOOK, batch=1)
    assert whole == pytest.approx(got, rel=1e-4, abs=1e-5)


def test_small_pushes_are_opposite_whatever_the_latent(host, sequences):
    """To first order: why the figure says little without its size and its agreement."""
    small = intervention(axes(host.d_model, 0.01), host, sequences, 4, HOOK)
    large = intervention(axes(host.d_model, 30.0), host, sequences, 4, HOOK)
    assert small["opposition"] < -0.999
    assert large["opposition"] > small["opposition"] + 0.01
    assert small["kl_plus"] < 1e-2 * large["kl_plus"]


def test_a_push_agrees_with_its_contexts_where_the_latent_is_what_the_host_reads(host, sequences):
    """At the end of the last block an axis is read by the unembedding alone."""
    got = intervention(axes(host.d_model), host, sequences, 8, "blocks.2.hook_resid_post")
    assert got["agreement"] > 0.2
    assert got["agreement"] > abs(got["agreement_others"]) + 0.1


def test_without_signs_a_dial_is_the_most_opposite_pair(host, sequences):
    """x = relu(x) - relu(-x): each pair is the two sides of an axis, and does what the signed latent does."""
    pair = intervention(exact_sae(host.d_model), host, sequences, host.d_model, HOOK)
    assert pair["row_cosine"] == pytest.approx(-1)
    assert pair["dials"] == pair["eligible"]
    one = intervention(axes(host.d_model), host, sequences, host.d_model, HOOK)
    assert pair["dials"] == one["dials"]
    assert pair["kl_plus"] + pair["kl_minus"] == pytest.approx(one["kl_plus"] + one["kl_minus"], rel=1e-3)
    for key in ("opposition", "agreement"):
        assert pair[key] == pytest.approx(one[key], abs=1e-3), key


def test_no_dial_no_figures(host, sequences):
    sae = axes(host.d_model)
    sae.b_enc.data.fill_(1e3)  # every code is positive
    assert intervention(sae, host, sequences, 4, HOOK) == {"dials": 0, "eligible": 0}
    off = exact_sae(host.d_model)
    off.b_enc.data.fill_(-1e3)
    assert intervention(off, host, sequences, 4, HOOK) == {"dials": 0, "eligible": 0}


# --- probing -----------------------------------------------------------------------------------------------


def planted(feature: int, d_in: int = 6, texts: int = 120, seed: int = 0) -> ProbeData:
    """Texts of three tokens; coordinate `feature` is high in positives only, all else is noise."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, texts)
    x = rng.normal(size=(texts, 3, d_in))
    x[:, :, feature] += 4 * label[:, None]
    return ProbeData(
        torch.tensor(x.reshape(-1, d_in), dtype=torch.float32),
        torch.arange(texts).repeat_interleave(3).int(),
        label,
        np.arange(texts) < 80,
    )


@pytest.mark.parametrize("feature", [0, 4])
def test_probe_finds_the_planted_latent(feature):
    data = planted(feature)
    got = probe(exact_sae(6), data, k=(1, 2, 5))
    assert got["k1"] >= 0.97
    assert dense_baseline(data) >= 0.97


def test_more_latents_and_the_dense_code_stand_beside(store):
    sae = random_sae("soft_rational", store)
    data = planted(2, d_in=store.d_in)
    got = probe(sae, data)
    assert got.keys() == {"interval", *(f"{p}k{n}" for p in ("", "soft_") for n in (1, 2, 5, 20))}
    assert isinstance(sae, SoftRational)
    sae.tau.zero_()
    assert [probe(sae, data)[f"k{n}"] for n in (1, 20)] == [got[f"soft_k{n}"] for n in (1, 20)]


def test_bootstrap_interval_covers_the_accuracy():
    """Against resampling the texts one by one; and over many test sets it covers the truth about 95 % of the time."""
    rng = np.random.default_rng(3)
    correct = rng.random(200) < 0.8
    low, high = bootstrap(correct)
    means = [rng.choice(correct, len(correct)).mean() for _ in range(2000)]
    assert [low, high] == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.015)
    covered = [low <= 0.8 <= high for low, high in (bootstrap(rng.random(200) < 0.8) for _ in range(300))]
    assert 0.88 < np.mean(covered) <= 0.99


def test_probe_on_noise_is_a_coin():
    data = planted(0)
    rng = np.random.default_rng(1)
    shuffled = ProbeData(data.x_ND, data.text_N, rng.permutation(data.label_T), data.is_train_T)
    assert 0.25 < probe(exact_sae(6), shuffled)["k1"] < 0.75


def test_pooling_is_the_mean_of_the_code_over_a_texts_tokens():
    data, sae = planted(1), exact_sae(6)
    z = pooled(sae.encode, data, rows=7)
    for text in (0, 57, 119):
        rows = data.x_ND[data.text_N == text]
        np.testing.assert_allclose(z[text], sae.encode(rows).mean(0).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_probe_data_leaves_out_position_0_and_padding(host):
    task = Task("t", (["one two", "a longer text here"], np.array([0, 1])), (["three"], np.array([1])))
    data = probe_data(host, HOOK, task, context=16)
    assert torch.bincount(data.text_N).tolist() == [
        len("one two") - 1,
        15,
        len("three") - 1,
    ]  # bytes are tokens
    tokens, mask = pad([list(host.tokenizer("three")["input_ids"])])
    hidden = host.model(input_ids=tokens, attention_mask=mask, output_hidden_states=True).hidden_states[2][
        0, 1:
    ]
    torch.testing.assert_close(data.x_ND[data.text_N == 2], hidden, rtol=1e-4, atol=1e-5)
    assert data.is_train_T.tolist() == [True, True, False]


def test_probe_data_round_trip(tmp_path):
    data = planted(2)
    data.save(tmp_path / "p.safetensors")
    again = ProbeData.load(tmp_path / "p.safetensors")
    assert probe(exact_sae(6), again) == probe(exact_sae(6), data)


# --- tasks -------------------------------------------------------------------------------------------------


def test_split_is_balanced_and_without_leakage():
    examples = [Example(f"text {i}", i % 2, f"source {i // 4}") for i in range(400)]
    examples += [
        Example(f" TEXT  {i} ", i % 2, f"copy {i}") for i in range(400)
    ]  # duplicates but for case and space
    task = split_task("t", examples, 100, 40, seed=0)
    norm = lambda texts: {" ".join(t.casefold().split()) for t in texts}  # noqa: E731
    train, test = norm(task.train[0]), norm(task.test[0])
    assert len(train) == 100
    assert len(test) == 40
    assert not train & test
    assert task.train[1].sum() == 50
    assert task.test[1].sum() == 20


def test_a_source_is_on_one_side_only():
    examples = [Example(f"{source} {i}", i % 2, source) for source in map(str, range(60)) for i in range(4)]
    task = split_task("t", examples, 80, 20, seed=0)
    sides = [{t.split()[0] for t in texts} for texts in (task.train[0], task.test[0])]
    assert not sides[0] & sides[1]


def test_small_sets_shrink_in_proportion():
    task = split_task("t", [Example(f"t{i}", i % 2, f"t{i}") for i in range(200)], 400, 100, seed=0)
    assert len(task.train[0]) / len(task.test[0]) == pytest.approx(4, rel=0.1)
    with pytest.raises(InputError, match="fewer than 10 examples"):
        split_task("t", [Example(f"t{i}", i % 2, f"t{i}") for i in range(30)], 400, 100, seed=0)


def test_embedded_tasks():
    task = evals.load_task("agnews_sports", train=60, test=20)
    again = evals.load_task("agnews_sports", train=60, test=20)
    assert task.train[0] == again.train[0]
    lengths = [np.mean([len(t) for t, y in zip(*task.train, strict=True) if y == label]) for label in (0, 1)]
    assert 0.5 < lengths[0] / lengths[1] < 2  # the set's own negatives are ten times as long


def test_wiki_tasks_use_articles_that_no_sae_saw():
    from rsae.activations.text import split_documents, wikipedia

    seen = {d.text for d in split_documents(wikipedia())["train"]}
    task = evals.load_task("wiki_people", train=60, test=20)
    assert not seen & set(task.train[0] + task.test[0])


def test_unknown_task():
    with pytest.raises(InputError, match="did you mean 'spam'"):
        evals.load_task("spm")


def test_tasks_from_files(tmp_path):
    """A .csv and a .jsonl with the same rows are the same task; sources are kept together."""
    rows = [
        {"text": f"text, number {i}", "label": ["a", "b", "c"][i % 3], "source": f"s{i // 5}"}
        for i in range(300)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = [f'"{r["text"]}",{r["label"]},{r["source"]}' for r in rows]
    (tmp_path / "t.csv").write_text("\n".join(["text,label,source", *lines]))
    one, other = (load_task(f"{tmp_path}/t.{kind}#b", 60, 20) for kind in ("csv", "jsonl"))
    assert one.train[0] == other.train[0]
    source = {r["text"]: r["source"] for r in rows}
    label = {r["text"]: int(r["label"] == "b") for r in rows}
    assert not {source[t] for t in one.train[0]} & {source[t] for t in one.test[0]}
    for texts, labels in (one.train, one.test):
        assert [label[t] for t in texts] == labels.tolist()


def test_task_from_a_data_set_on_the_hub(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def download(repository, file, repo_type):
        asked.append((repository, file, repo_type))
        if repository == "nobody/nothing":
            raise LocalEntryNotFoundError("no network")
        return str(tmp_path / "t.csv")

    lines = [f"{'a' if n % 2 else 'b'} text {n},{'a' if n % 2 else 'b'}" for n in range(200)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines]))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    one, other = (load_task(name, 60, 20) for name in ("me/set:data/t.csv#a", f"{tmp_path}/t.csv#a"))
    assert asked == [("me/set", "data/t.csv", "dataset")]
    assert one.train[0] == other.train[0]
    assert (one.test[1] == other.test[1]).all()
    with pytest.raises(InputError, match=r"nobody/nothing:x\.csv: not to be had from the hub \(no network\)"):
        load_task("nobody/nothing:x.csv", 60, 20)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "text,lable\nx,1\n", "'label' is missing"),
        ("t.csv", "text,label\nx,a\ny,b\nz,c\n", "a, b, c: name one"),
        ("t.csv", "text,label\nx,a\n", "labels a"),
        ("t.jsonl", "{'text': 1}", "not readable as .jsonl"),
        ("t.txt", "", "neither embedded nor a .csv or .jsonl"),
    ],
)
def test_mistakes_in_task_files(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        load_task(str(tmp_path / name))


def test_topics_and_languages_are_balanced_tasks_parted_by_article():
    for name in ("wiki_mathematics", "spanish_not_french"):
        task = load_task(name, 60, 20)
        assert task.train[1].mean() == task.test[1].mean() == 0.5
        assert not set(task.train[0]) & set(task.test[0])
