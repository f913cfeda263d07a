"""nas proxies validate on the kinds of tables that others publish, in small."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.proxies import app
from nas.errors import ConfigError
from nas.quality.agreement import MOST_DRAWN, agreement_at_equal_cost, bootstrap
from nas.quality.architecture import architecture
from nas.quality.columns import number, params_column, truth_column, where
from nas.quality.evidence import compare, noise_ceiling
from nas.quality.tables import read_table

REFERENCE = Path(__file__).parents[1] / "proxies" / "reference"
GPT2 = {
    "config.n_layer": 5, "config.d_model": 128, "config.d_inner": [1071, 640, 1286, 800, 1871],
    "config.n_head": [2, 4, 4, 8, 8],
}  # fmt: skip


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def validated(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["validate", *arguments, "--json"], catch_exceptions=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_parameters_of_a_published_gpt2_are_exact() -> None:
    """LiteTransformerSearch counts 1,790,372 without embeddings in this design."""
    found = architecture(GPT2)
    assert found is not None and found.params == 1_790_372
    assert (found.depth, found.width) == (5, 128)
    ffn = 2 * 128 * (1071 + 640 + 1286 + 800 + 1871)
    assert found.flops == 2 * (5 * 4 * 128**2 + ffn) + 5 * 4 * 256 * 128


def test_parameters_equal_those_of_a_transformers_gpt2() -> None:
    from transformers import GPT2Config, GPT2Model

    model = GPT2Model(GPT2Config(n_layer=2, n_embd=32, n_head=4, n_inner=96, vocab_size=50))
    own = sum(weight.numel() for name, weight in model.named_parameters() if not name.startswith(("wte", "wpe")))
    found = architecture({"n_layer": 2, "n_embd": 32, "n_head": 4, "d_inner": 96})
    assert found is not None and found.params == own


def test_flexibert_ignores_the_width_of_layers_that_it_does_not_have() -> None:
    def of(*layers: dict[str, int]) -> int:
        found = architecture({"hidden_size": 128, "nas_config.encoder_layers": list(layers)})
        assert found is not None
        return found.params

    one = {"feed_forward_dimension": 512, "num_feed_forward": 1}
    assert of(one) == of(one | {"feed_forward_dimension": 1024})
    assert of(one | {"num_feed_forward": 3}) - of(one) == (1024 * 512 + 512) + (512 * 512 + 512) + 128 * (512 - 1024)


def test_elastic_vit_and_stages() -> None:
    flat = architecture(
        {"arch.hidden_dim": 192, "arch.depth": 2, "arch.mlp_ratio": [3.5, 4.0], "arch.num_heads": [3, 4]}
    )
    assert flat is not None and flat.layers[1][0] == (192, 256) and flat.layers[0][-1] == (672, 192)
    staged = architecture({"base_dim": 24, "depth": [1, 2], "mlp_ratio": 4, "num_heads": [2, 4]})
    assert staged is not None and staged.widths == (48, 96, 96) and staged.layers[2][-1] == (384, 96)


def test_csv_holds_the_same_architecture(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(GPT2))
        table.writeheader()
        table.writerow(GPT2)
    assert architecture(read_table(path)[0]) == architecture(GPT2)


def test_a_row_without_sizes_describes_no_architecture() -> None:
    assert architecture({"accuracy": 0.3, "params": 12}) is None
    assert architecture({"depth": 3, "width": 16}) is None


def designs(count: int) -> list[dict[str, Any]]:
    """Transformers whose perplexity falls with depth x width^2, a little noise in it."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        depth, width = int(generator.integers(2, 17)), int(generator.choice([64, 128, 256, 512]))
        ffn = [int(width * ratio) for ratio in generator.uniform(1, 4, depth)]
        loss = -np.log(depth * width**2) + 0.05 * generator.normal()
        rows.append(
            {"config": {"n_layer": depth, "d_model": width, "d_inner": ffn}, "ppl": {"valid_ppl": 40 + float(loss)}}
        )
    return rows


def test_columns_are_found_and_anchors_fitted(tmp_path: Path) -> None:
    found = validated(str(written(tmp_path / "t.jsonl", designs(60))), "--anchors", "10", "--draws", "5")
    assert found["truth"] == "ppl.valid_ppl" and found["lower_is_better"] and found["params"] == "params (counted)"
    assert found["scores"][0]["name"] == "params (counted)"
    assert {"depth", "width", "depth x width", "depth x width^2", "rank budget"} <= {
        one["name"] for one in found["scores"]
    }
    anchored = found["anchored"]
    assert anchored["n"] == 50 and anchored["tau"]["mean"] > 0.85
    assert anchored["tau"]["low"] <= anchored["tau"]["mean"] <= anchored["tau"]["high"]


def test_the_anchored_score_sees_feed_forward_layers_where_they_tell(tmp_path: Path) -> None:
    """Depth and width lead; parameters join them where anchors left out are predicted better with them."""
    generator = np.random.default_rng(0)
    rows = [
        {"n_layer": 8, "d_model": 256, "d_inner": int(ffn), "acc": float(np.log(ffn) + 0.1 * generator.normal())}
        for ffn in generator.integers(256, 4096, 60)
    ]
    found = validated(str(written(tmp_path / "t.jsonl", rows)), "--anchors", "12", "--draws", "5")
    assert found["anchored"]["tau"]["mean"] > 0.75
    for row in rows:  # of two depths, what they say is all there is to know
        row["n_layer"] = int(generator.choice([4, 8]))
        row["acc"] = row["n_layer"] + 0.1 * float(generator.normal())
    found = validated(str(written(tmp_path / "d.jsonl", rows)), "--anchors", "12", "--draws", "5")
    assert found["anchored"]["tau"]["mean"] > found["scores"][0]["tau"] + 0.1


def test_json_list_is_read_as_lines_are(tmp_path: Path) -> None:
    rows = designs(12)
    path = tmp_path / "t.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    assert read_table(path) == read_table(written(tmp_path / "t.jsonl", rows))


def test_an_unclear_truth_is_asked_for(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.jsonl", [{"a_acc": 1.0, "b_acc": 2.0, "params": 3}, {"a_acc": 2.0, "b_acc": 1.0, "params": 4}]
    )
    with pytest.raises(ConfigError, match=r"name it by --truth; numeric columns: a_acc, b_acc, params"):
        validated(str(path))
    done = CliRunner().invoke(app, ["validate", str(path), "--truth", "a_acc", "--anchors", "5"])
    assert isinstance(done.exception, ConfigError) and "needs rows with a configuration" in str(done.exception)


def test_truth_may_be_the_mean_of_several_columns() -> None:
    name, rows = truth_column([{"a.x": 1, "a.y": 3}, {"a.x": 5, "a.y": 5}], "a.*")
    assert [row[name] for row in rows] == [2, 5]


def test_rows_are_kept_by_value() -> None:
    assert where([{"set": "main"}, {"set": "test"}], ["set=test"]) == [{"set": "test"}]
    with pytest.raises(ConfigError, match="no row of the table has set=x"):
        where([{"set": "main"}], ["set=x"])


def test_own_benchmark_is_read_as_candidates() -> None:
    table = str(REFERENCE / "microvlm.jsonl")
    found = validated(
        table, "--truth", "accuracy.*", "--where", "set=test", "--latency", "flops", "--anchors", "12", "--draws", "3"
    )
    assert found["structure"] == "candidates" and found["rows"] == 60
    scores = {one["name"]: one for one in found["scores"]}
    assert scores["predicted:prior"]["tau"] > scores["params (counted)"]["tau"]
    assert found["anchored"]["tau"]["mean"] > scores["params (counted)"]["tau"]


def test_own_designs_are_compared_at_equal_estimated_latency() -> None:
    found = validated(str(REFERENCE / "microvlm.jsonl"), "--truth", "accuracy.*", "--where", "set=test")
    assert found["latency"] == "latency_ms on raspberry-pi-5-8gb (estimated:datasheet)"
    assert all(one["pairs_equal_latency"] > 0 for one in found["scores"])
    other = validated(
        str(REFERENCE / "microvlm.jsonl"), "--truth", "accuracy.*", "--where", "set=test", "--device", "epyc-9654"
    )
    assert other["latency"].startswith("latency_ms on epyc-9654 (estimated")


def group(name: str, sizes: list[int], sign: int) -> list[dict[str, Any]]:
    return [
        {
            "group_id": name,
            "source": name,
            "lm_params_M": size,
            "metrics": json.dumps({"VQA": sign * size, "x_loss": size}),
        }
        for size in sizes
    ]


def test_published_groups_are_ranked_inside_each(tmp_path: Path) -> None:
    rows = [*group("a", [500, 1000, 3000, 7000], 1), *group("b", [100, 200, 400, 800], 1), *group("few", [1, 2], 1)]
    rows += group("reverse", [300, 600, 900, 1200], -1)
    table, target = written(tmp_path / "t.jsonl", rows), tmp_path / "p.csv"
    found = validated(str(table), "--predictions", str(target))
    assert found["groups"] == 3 and found["groups_in_shipped_fit"] == 0
    assert found["rho"]["log LM params"] == pytest.approx({"a": 1.0, "b": 1.0, "reverse": -1.0})
    assert found["mean_rho"]["visual tokens"] == 0.0
    assert len(target.read_text(encoding="utf-8").splitlines()) == 1 + len(rows)


def test_rows_without_a_group_are_in_none(tmp_path: Path) -> None:
    rows = [*group("a", [500, 1000, 3000, 7000], 1), *group("b", [100, 200, 400, 800], -1)]
    lost: list[dict[str, Any]] = [
        {**row, "group_id": name} for row, name in zip(rows, ["", None, " ", ""] * 2, strict=True)
    ]
    found = validated(str(written(tmp_path / "t.jsonl", [{"source": "x"}, *rows, *lost, {"metrics": "{}"}])))
    assert found["rho"]["log LM params"] == pytest.approx({"a": 1.0, "b": -1.0})
    low, high = found["interval"]["log LM params"]
    assert low == -1.0 and high == 1.0


def test_equal_cost_agrees_with_counting_pairs_one_by_one() -> None:
    generator = np.random.default_rng(1)
    scores, truth = generator.integers(0, 5, 40).tolist(), generator.integers(0, 9, 40).tolist()
    params = generator.uniform(90, 120, 40).tolist()
    total = decided = untied_score = untied_truth = 0
    for i in range(40):
        for j in range(i):
            if max(params[i], params[j]) > 1.1 * min(params[i], params[j]):
                continue
            total += 1
            a, b = np.sign(scores[i] - scores[j]), np.sign(truth[i] - truth[j])
            decided, untied_score, untied_truth = decided + a * b, untied_score + (a != 0), untied_truth + (b != 0)
    found = agreement_at_equal_cost(scores, truth, params)
    assert found.pairs == total and found.kendall_tau == pytest.approx(decided / np.sqrt(untied_score * untied_truth))


ELASTIC = {"hidden_dim": 192, "mlp_ratio": [3.5, 4.0, 3.5], "depth": 3, "num_heads": [4, 3, 4]}


@pytest.mark.parametrize(
    "change",
    [
        {"mlp_ratio": []},
        {"mlp_ratio": [None, 4.0, 4.0]},
        {"mlp_ratio": 0},
        {"num_heads": ["many"]},
        {"depth": 10**9},
        {"mlp_ratio": 0.001},
        {"num_heads": [0.001, 0.001, 0.001]},
        {"hidden_dim": 10**200},
        {"mlp_ratio": 1e300},
    ],
)
def test_a_design_that_says_no_sizes_is_no_architecture(change: dict[str, Any]) -> None:
    assert architecture({**ELASTIC, **change}) is None


@pytest.mark.parametrize(
    "same",
    [
        {"hidden_dim": 192.0, "depth": 3.0},
        {"mlp_ratio": ["3.5", "4.0", "3.5"]},
        {"mlp_ratio": "[3.5, 4, 3.5]", "num_heads": "[4, 3, 4]", "depth": "3", "hidden_dim": "192.0"},
    ],
)
def test_the_writing_of_a_number_does_not_change_the_architecture(same: dict[str, Any]) -> None:
    assert architecture({**ELASTIC, **same}) == architecture(ELASTIC) is not None
    shouted = {f"Arch.{name.title().replace('_', '-')}": value for name, value in {**ELASTIC, **same}.items()}
    assert architecture(shouted) == architecture(ELASTIC)


@pytest.mark.parametrize(("text", "value"), [("76.1%", 76.1), (" 0.5 ", 0.5), ("1,234,567", 1234567.0), ("1,2", None)])
def test_numbers_are_read_as_people_write_them(text: str, value: float | None) -> None:
    assert number(text) == value


@pytest.mark.parametrize(("name", "separator"), [("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t"), ("T.CSV", ",")])
def test_separators_and_byte_order_marks_are_no_data(tmp_path: Path, name: str, separator: str) -> None:
    file = tmp_path / name
    file.write_text("\ufeff" + f"params{separator} accuracy\n1{separator}2\n", encoding="utf-8")
    assert read_table(file) == [{"params": "1", "accuracy": "2"}]


@pytest.mark.parametrize("text", ["params|acc|note\n1|2|a,b\n", "params   acc note\n1 2 a,b\n"])
def test_bars_and_blanks_separate_where_nothing_else_does(tmp_path: Path, text: str) -> None:
    file = tmp_path / "t.csv"
    file.write_text(text, encoding="utf-8")
    assert read_table(file) == [{"params": "1", "acc": "2", "note": "a,b"}]


def test_commas_are_decimal_in_a_table_of_semicolons_that_has_one(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("params;acc\n1,234;0,5\n", encoding="utf-8")
    assert read_table(file) == [{"params": "1.234", "acc": "0.5"}]
    file.write_text("params;acc\n1,234;7\n", encoding="utf-8")
    assert read_table(file) == [{"params": "1,234", "acc": "7"}]


@pytest.mark.parametrize(
    "table",
    [
        {"models": [{"name": "a", "acc": 1}, {"name": "b", "acc": 2}]},
        {"a": {"acc": 1}, "b": {"acc": 2}},
        {"name": ["a", "b"], "acc": [1, 2]},
    ],
)
def test_json_may_hold_one_list_or_rows_or_columns_by_name(tmp_path: Path, table: Any) -> None:
    file = tmp_path / "t.json"
    file.write_text(json.dumps(table), encoding="utf-8")
    assert read_table(file) == [{"name": "a", "acc": 1}, {"name": "b", "acc": 2}]


def test_a_line_separator_inside_a_string_ends_no_row(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"name": "a\u2028b", "acc": 1}\r\n', encoding="utf-8")
    assert read_table(file) == [{"name": "a\u2028b", "acc": 1}]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.csv", "params,accuracy\n", "has no rows"),
        ("t.json", "3", "a list of rows, rows by name, or columns by name"),
        ("t.csv", "", "has no rows"),
        ("t.csv", "params,accuracy\n1,2\n1,2,3\n", "line 3 has more cells"),
        ("t.jsonl", '{"params": 1}\n{"params":\n', "line 2"),
        ("t.xls", "", "ends in .csv"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=reason):
        read_table(tmp_path / name)


def test_a_constant_truth_is_called_so() -> None:
    with pytest.raises(ConfigError, match="one and the same number"):
        compare([{"params": 1, "acc": 3}, {"params": 2, "acc": 3}], truth="acc", params="params")


def test_a_constant_count_leaves_room_for_one_that_varies() -> None:
    rows = [{"params": 5, "acc": 7, "trainable_parameters": n, "top1_error": n} for n in range(3)]
    assert truth_column(rows, None)[0] == "top1_error"
    assert params_column(rows, None, None) == "trainable_parameters"
    assert params_column(rows, None, "params (counted)") == "params (counted)"
    assert params_column(rows[:1] * 3, None, None) == "params"


def test_models_of_one_size_are_all_of_equal_cost() -> None:
    size, score = compare([{"params": 7, "acc": n, "proxy": n} for n in range(6)], truth="acc", params="params")
    assert size.name == "params" and size.tau is None
    assert score.pairs_equal_params == 15 and score.tau_equal_params == 1.0


def test_the_interval_of_a_large_table_is_about_that_of_all_its_rows() -> None:
    generator = np.random.default_rng(3)
    score = generator.normal(size=9 * MOST_DRAWN)
    found = bootstrap(score.tolist(), (score + generator.normal(size=len(score))).tolist())
    low, high = found["spearman_rho"] or (0.0, 0.0)
    whole = 6 / np.pi * np.arcsin(np.sqrt(0.5) / 2)  # Spearman of a normal pair whose correlation is sqrt(1/2)
    assert low < whole < high
    assert 0.5 < (high - low) / (2 * 1.645 * (1 - whole**2) / np.sqrt(len(score))) < 1.5


def test_rows_of_the_design_of_an_anchor_are_not_ranked(tmp_path: Path) -> None:
    rows = [{**row, "name": place, "seed": seed} for place, row in enumerate(designs(30)) for seed in range(2)]
    found = validated(str(written(tmp_path / "t.jsonl", rows)), "--anchors", "6", "--draws", "3", "--design", "name")
    assert 48 <= found["anchored"]["n"] <= 57  # two rows of each of six designs, fewer where both are anchors
    few = [{**row, "name": place} for place, row in enumerate(designs(5)) for _ in range(4)]
    with pytest.raises(ConfigError, match="no design is left to rank"):
        validated(str(written(tmp_path / "a.jsonl", few)), "--anchors", "10", "--draws", "9", "--design", "name")


def test_the_noise_ceiling_uses_every_repeat() -> None:
    """Second trainings agree with the first, third ones reverse them: the three pairs have rho 1, -1, -1."""
    rows = [{"key": d, "acc": value} for d in range(5) for value in (d, d, -d)]
    assert noise_ceiling(rows, truth="acc", design="key").rho == pytest.approx(-1 / 3)
    with pytest.raises(ConfigError, match="no column 'kye'; did you mean 'key'"):
        noise_ceiling(rows, truth="acc", design="kye")


def test_published_metrics_may_be_nested_and_unknown(tmp_path: Path) -> None:
    rows = [{"group_id": "a", "metrics": {"vqa": 50 + n, "gqa": float("nan")}, "lm_params_M": n} for n in range(1, 6)]
    found = validated(str(written(tmp_path / "t.jsonl", rows)))
    assert found["groups"] == 1 and found["mean_rho"]["log LM params"] == pytest.approx(1.0)
