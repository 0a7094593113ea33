"""What a job of a multirun is: Hydra's own composition, its files byte for byte, its numbers beside those of the jobs like it."""

from __future__ import annotations

import itertools
import math
import re
import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import hydra
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, RunMode
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue

import gdjax
from gdjax.launcher import Batch, Outcome, batchable
from gdjax.launcher.batch import of_task, one
from gdjax.launcher.grouping import Composer, check_batch
from gdjax.launcher.launch import Multirun, Options
from gdjax.launcher.mistakes import JobMistake
from gdjax.launcher.results import Archive, arranged, label
from gdjax.records import InputError

CONFIG = """
defaults: [{model: small}, _self_]
rate: 0.1
seed: 0
momentum: null
note: plain
nested: {depth: {b1: 0.9}}
hydra:
  job: {chdir: false}
  sweep: {dir: many, subdir: "${hydra.job.num}"}
"""
GROUPS = {
    "model/small.yaml": "{name: small, width: 4}",
    "model/twin.yaml": "{name: small, width: 4}",
    "model/big.yaml": "{name: big, width: 8}",
    "model/linked.yaml": "{name: linked, width: '${rate}'}",
    "model/numbered.yaml": "{name: numbered, width: '${hydra:job.num}'}",
}


class App:
    """An application's configuration, as Hydra has it before the first job is composed."""

    def __init__(self, folder: Path, config: str = CONFIG, overrides: tuple[str, ...] = ()) -> None:
        for name, text in ({"config.yaml": config} | GROUPS).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        whole = Hydra.create_main_hydra2(task_name="app", config_search_path=create_config_search_path(str(folder)))
        whole_overrides = ["hydra/job_logging=none", "hydra/hydra_logging=none", *overrides]
        self.config = whole.compose_config("config", whole_overrides, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        self.context = HydraContext(config_loader=whole.config_loader, callbacks=Callbacks())
        GlobalHydra.instance().clear()

    def compose(self, overrides):
        return self.context.config_loader.load_sweep_config(self.config, overrides)

    def composer(self, task, **changes):
        spec = of_task(task)
        vars_of = {name: getattr(spec, name) for name in ("numbers", "run", "accepts", "also", "check", "ran")}
        return Composer(self.compose, type(spec)(**vars_of | changes), self.config.hydra.runtime.choices)

    def launch(self, task, jobs, **options):
        return Multirun(self.context, task, self.config, Options(**options)).launch([job.split() for job in jobs], 0)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return App(tmp_path_factory.mktemp("app"))


@batchable({"nested.depth.b1": float}, rate=float, seed=int, momentum=float)
def task(settings, rate, seed, momentum, b1):
    return rate + seed * settings.model.width + (0 if momentum is None else momentum) + b1


@pytest.fixture(scope="module")
def composer(app):
    return app.composer(task)


def grouped(composer, *jobs):
    groups = composer.groups([job.split() for job in jobs], 0)
    return groups, [[job.num for job in group.jobs] for group in groups]


class TestGroups:
    """Jobs share a group where their resolved settings are equal but for the declared numbers."""

    @pytest.mark.parametrize(
        ("jobs", "wanted"),
        [
            (["rate=0.1", "rate=1e-3", "rate=.5", "rate=5.", "rate=-2", "rate=+3"], [[0, 1, 2, 3, 4, 5]]),
            (["rate=0.1 seed=3", "seed=3 rate=0.2", "seed=3", ""], [[0, 1, 2, 3]]),
            (["rate=1_000", "rate=inf", "rate=-inf", "rate=nan", "++rate=0.5", "rate=1"], [[0, 1, 2, 3, 4, 5]]),
            (["momentum=0.5", "momentum=null", "momentum=0.9"], [[0, 2], [1]]),
            (["note=a rate=1", "note=b rate=1", "note=a rate=2", "note='b'"], [[0, 2], [1, 3]]),
            (["+extra=1", "rate=2", "~note", "+extra=1 rate=3", "+extra=2"], [[0, 3], [1], [2], [4]]),
            (["nested.depth={b1:0.5}", "nested.depth.b1=0.7", "+nested.depth={b2:1}"], [[0, 1], [2]]),
            (["model=small", "model=big", "model=twin", "model=small rate=2"], [[0, 2, 3], [1]]),
            (["model=linked rate=1", "model=linked rate=2", "model=linked rate=1 seed=4", "model=linked rate=1.0"], [[0, 2], [1], [3]]),
            (["model.width=4", "model.width=5", "model.width=4 seed=1"], [[0, 2], [1]]),
        ],
        ids=lambda value: " | ".join(value)[:60] if isinstance(value[0], str) else "",
    )
    def test_are_of_equal_settings(self, composer, jobs, wanted):
        assert grouped(composer, *jobs)[1] == wanted

    @pytest.mark.parametrize("job", ["rate=2", "rate=1_000", "++rate=.5", "rate=inf", "rate=1e-3 rate=7", "seed=-0 rate=0", "rate=12e2"])
    def test_have_each_number_as_hydra_composes_it(self, app, composer, job):
        (group,), _ = grouped(composer, "rate=0.25 seed=8", job)
        batch, alone = group.batch(), app.compose(job.split())
        assert {key: column.tolist()[1] for key, column in batch.numbers.items()} == {
            "rate": alone.rate, "seed": alone.seed, "nested.depth.b1": 0.9
        }  # fmt: skip
        assert len(batch) == 2
        assert batch.part(slice(1, 2)).numbers["rate"].tolist() == [alone.rate]

    def test_a_number_below_an_overridden_node_is_the_later_one_s(self, composer):
        for job, wanted in {"nested.depth={b1:0.5} nested.depth.b1=0.7": 0.7, "nested.depth.b1=0.7 nested.depth={b1:0.5}": 0.5}.items():
            (group,), _ = grouped(composer, job)
            assert group.batch().numbers["nested.depth.b1"].tolist() == [wanted]

    def test_a_number_of_a_config_group_s_choice_is_the_override_s(self, app):
        wide = app.composer(batchable({"model.width": int})(lambda settings, width: width))
        (group, dicts), _ = grouped(
            wide, "model=big model.width=3", "model.width=5 model=big", "model=big", "model={name:odd} model.width=1"
        )
        assert group.batch().numbers["model.width"].tolist() == [3, 5, 8]
        assert group.template.structural == ("model=big",)
        assert dicts.batch().numbers["model.width"].tolist() == [1]

    def test_an_interpolation_of_a_number_has_each_job_s_value(self, composer):
        groups, _ = grouped(composer, "model=linked rate=1", "model=linked rate=2.5")
        assert [group.batch().settings.model.width for group in groups] == [1, 2.5]

    def test_numbers_are_missing_from_the_settings_and_all_else_is_there(self, composer):
        (group,), _ = grouped(composer, "rate=0.3", "seed=2")
        settings = group.batch().settings
        assert (settings.model.width, settings.note, settings.momentum) == (4, "plain", None)
        for key in ("rate", "seed", "nested.depth.b1"):
            assert OmegaConf.is_missing(OmegaConf.select(settings, key.rpartition(".")[0]) if "." in key else settings, key.split(".")[-1])

    def test_are_named_by_what_differs(self, composer):
        groups, _ = grouped(composer, "model=small note=a", "model=big note=a", "rate=3")
        assert [group.name for group in groups] == ["model=small,note=a", "model=big,note=a", "rest"]
        assert [group.name for group in grouped(composer, "note=a", "note=a rate=1")[0]] == [""]

    def test_settings_of_one_job_alone_run_alone(self, composer):
        (group,), partition = grouped(composer, "model=numbered", "model=numbered rate=3")
        assert partition == [[0, 1]]
        assert "hydra:job.num" in group.template.obstacle

    @pytest.mark.skipif(not hydra.__version__.startswith("1.3"), reason="Hydra 1.4 has no older defaults")
    @pytest.mark.parametrize(("base", "wanted"), [("1.1", True), ("1.3", False)])
    def test_of_an_application_whose_hydra_changes_directory_run_alone(self, tmp_path, hydra_restore_singletons, base, wanted):
        from hydra import version

        with warnings.catch_warnings(action="ignore", category=UserWarning):  # Hydra's, that 1.1 will be gone
            version.setbase(base)
        composer = App(tmp_path, CONFIG.replace("job: {chdir: false}", "job: {chdir: null}")).composer(task)
        (group,), _ = grouped(composer, "rate=1")
        assert (group.template.obstacle is not None) is wanted

    def test_one_composition_serves_all_numbers(self, app):
        composed = []

        def compose(overrides):
            composed.append(overrides)
            return app.compose(overrides)

        Composer(compose, of_task(task)).groups([[f"rate={rate}", f"note={note}"] for rate in range(50) for note in "ab"], 0)
        assert composed == [["note=a"], ["note=b"]]


class TestMistakes:
    """The job and its override are named, and nothing has run."""

    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            ("rate=abc", "rate=abc is not allowed"),
            ("rate='0.5'", "rate=0.5 is not allowed"),
            ("rate=007", "rate=007 is not allowed"),
            ("rate=true", "rate=True is not allowed"),
            ("seed=1.5", "seed=1.5 is not allowed"),
            ("sede=1", "unknown setting: 'sede'. Did you mean 'seed'?"),
            ("nested.depth.b2=1", "unknown setting of nested.depth: 'b2'. Did you mean 'b1'?"),
            ("model=biig", "unknown model: 'biig'. Did you mean 'big'?"),
        ],
    )
    def test_of_one_job_name_it_and_its_override(self, app, monkeypatch, tmp_path, bad, said):
        monkeypatch.chdir(tmp_path)
        ran = []
        never = batchable({"nested.depth.b1": float}, rate=float, seed=int, momentum=float, run=ran.append)(lambda settings: None)
        with pytest.raises(JobMistake) as caught:
            app.launch(never, ["rate=1", f"note=a {bad}", "rate=x"])
        message = str(caught.value)
        assert message.startswith(f"job 1 (note=a {bad}): ")
        assert said in message
        assert message.endswith(" Nothing has run.")
        assert "\n" not in message
        assert (ran, list(tmp_path.iterdir())) == ([], [])

    @pytest.mark.parametrize("culprits", [[0], [63], [17], [5, 40], [62, 63]])
    def test_that_only_the_check_sees_are_found_by_bisection(self, app, culprits):
        asked = []

        def check(batch):
            asked.append(len(batch))
            if bad := set(batch.numbers["seed"].tolist()) & set(culprits):
                raise InputError(f"seed={min(bad)} is unlucky.")

        (group,) = app.composer(task).groups([[f"seed={seed}"] for seed in range(64)], 0)
        with pytest.raises(JobMistake, match=rf"job {min(culprits)} \(seed={min(culprits)}\): seed={min(culprits)} is unlucky"):
            check_batch(group, group.batch(), check)
        assert len(asked) <= 1 + math.log2(64)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"job_dirs": "ful"}, "unknown hydra.launcher.job_dirs: 'ful'. Did you mean 'full'?"),
            ({"max_batch": 0}, "hydra.launcher.max_batch=0 is not allowed"),
            ({"max_batch": 2.5}, "hydra.launcher.max_batch=2.5 is not allowed"),
            ({"replicate": {"seed": 4, "reduce": "mode"}}, "unknown hydra.launcher.replicate.reduce: 'mode'"),
            ({"replicate": {"seed": 0}}, "hydra.launcher.replicate=0 is not allowed"),
            ({"replicate": {"seed": "x"}}, "is not allowed"),
            ({"replicate": {"seed": 2, "rate": 2}}, "names one key"),
        ],
    )
    def test_of_the_launcher_s_options(self, options, said):
        with pytest.raises(CompactHydraException) as caught:
            Options(**options)
        assert said in str(caught.value)

    @pytest.mark.parametrize(
        ("declare", "said"),
        [
            (lambda: batchable(rate=float)(lambda settings, seed: seed), "declared to have rate"),
            (lambda: batchable({"a.rate": float, "b.rate": float})(lambda settings, rate: rate), "two declared numbers are called rate"),
            (lambda: batchable(rate="float")(lambda settings, rate: rate), "rate='float' is not allowed"),
            (lambda: batchable(rate=float)(hydra.main(version_base="1.3")(lambda settings, rate: rate)), "below @hydra.main"),
        ],
    )
    def test_of_a_declaration(self, declare, said, mistake):
        assert said in mistake(declare)


@dataclass
class Typed:
    rate: float = 0.1
    count: int = 3
    absent: float = MISSING
    maybe: float | None = None
    words: str = "plain"
    items: list[int] = field(default_factory=lambda: [1, 2])


AWKWARD_CONFIG = """
defaults: [{typed: for_tests}, {model: small}, _self_]
free: 1.0
missing: ???
linked: ${typed.rate}
deep: {er: {lying: 2, text: "it's: a #'quoted' text"}}
long: this text is so much longer than a line of eighty characters that YAML folds it, and it names ${typed.rate} at its end
hydra: {job: {chdir: false}, sweep: {dir: many, subdir: "${hydra.job.num}"}}
"""
AWKWARD = [
    ["typed.rate=1e-05", "free=1e-05", "typed.count=4"],
    ["typed.rate=1", "free=1", "typed.maybe=1", "typed.absent=2"],
    ["typed.rate=1e22", "free=123456789012345678901234567890", "deep.er.lying=-0.0"],
    ["free=.5", "typed.rate=-0", "typed.count=-7", "typed.maybe=0.1"],
    ["typed.words='a b'", "typed.rate=0.1", "free=0.30000000000000004"],
    ['typed.words="it\'s"', "typed.count=1"],
    ["typed.words='größer 𝛼'", "typed.items=[3,4,5]", "missing=x", "typed.rate=2"],
    ["+extra=null", "~deep.er.text", "typed.rate=inf"],
    ["model=big", "++typed.rate=.5", "free=nan"],
    ["model=twin", "typed.rate=3", "deep.er={lying:5,text:y}"],
    ["free=0", "typed.words=null_", "deep.er.text='null'"],
    ["free=false", "typed.words='1e-05'", "typed.maybe=null"],
    [],
]


@batchable(
    {"deep.er.lying": float, "typed.rate": float, "typed.count": int, "typed.absent": float, "typed.maybe": float},
    free=lambda key, value: value,
    run=lambda batch: Outcome(values=list(range(len(batch)))),
)
def awkward(settings):
    return 0


def written(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.parent.name == ".hydra"}


class TestFiles:
    """What is written for a job is what Hydra's own launcher writes."""

    @pytest.mark.parametrize(
        ("overrides", "jobs"),
        [((), AWKWARD), (("hydra.sweep.subdir=${hydra.job.override_dirname}",), [AWKWARD[0], AWKWARD[4], AWKWARD[8]])],
        ids=["numbered", "named"],
    )
    def test_are_hydra_s_byte_for_byte(self, tmp_path, monkeypatch, hydra_restore_singletons, overrides, jobs):
        ConfigStore.instance().store(group="typed", name="for_tests", node=Typed)
        monkeypatch.chdir(tmp_path)
        app = App(tmp_path / "conf", AWKWARD_CONFIG, overrides)
        basic = BasicLauncher()
        basic.setup(hydra_context=app.context, task_function=awkward, config=app.config)
        theirs = basic.launch(jobs, 0)
        wanted = written(tmp_path / "many")
        shutil.rmtree(tmp_path / "many")
        ours = Multirun(app.context, awkward, app.config, Options(job_dirs="full")).launch(jobs, 0)
        assert len(wanted) == 3 * len(jobs)
        got = written(tmp_path / "many")
        assert sorted(got) == sorted(wanted)
        assert {name: text.decode() for name, text in got.items()} == {name: text.decode() for name, text in wanted.items()}
        for mine, its in zip(ours, theirs, strict=True):
            assert mine.overrides == its.overrides
            assert OmegaConf.to_yaml(mine.cfg) == OmegaConf.to_yaml(its.cfg)
            assert OmegaConf.to_yaml(mine.hydra_cfg) == OmegaConf.to_yaml(its.hydra_cfg)

    @pytest.mark.parametrize(
        ("asked", "names"), [("none", None), ("overrides", {"overrides.yaml"}), ("auto", {"config.yaml", "hydra.yaml", "overrides.yaml"})]
    )
    def test_are_as_many_as_asked_for(self, app, tmp_path, monkeypatch, asked, names):
        monkeypatch.chdir(tmp_path)
        app.launch(task, ["rate=1", "rate=2"], job_dirs=asked)
        inner = tmp_path / "many" / "1" / ".hydra"
        assert ({path.name for path in inner.iterdir()} if inner.parent.is_dir() else None) == names


def a_list(rows, first=0, **attributes):
    """Runs whose result says which job they are."""
    nums = np.arange(first, first + len(rows))
    return xr.Dataset(
        {"f": ("job", 10.0 * nums), "curve": (("job", "step"), nums[:, None] + np.zeros(3))}, {"step": [0, 1, 2]}, attributes
    ), nums


class TestArranged:
    """A product has dimensions, whatever the order of its jobs; anything else is a list."""

    def test_a_product_in_any_order_of_its_jobs(self):
        rows = np.array(list(itertools.product([0.1, 0.2, 0.5], [4, 7])))
        for seed in range(6):
            shuffled = np.random.default_rng(seed).permutation(rows) if seed else rows
            runs, nums = a_list(shuffled)
            labels = {"rate": shuffled[:, 0], "seed": shuffled[:, 1]}
            folded = arranged(runs.assign_coords(job=nums), labels)
            assert folded.f.dims == ("rate", "seed")
            assert folded.curve.dims == ("rate", "seed", "step")
            for num, (rate, run_seed) in enumerate(shuffled):
                there = folded.sel(rate=rate, seed=run_seed)
                assert (float(there.f), int(there.job), there.curve.values.tolist()) == (10.0 * num, num, [num] * 3)

    @pytest.mark.parametrize(
        "rows",
        [
            [[0.1, 1], [0.2, 2]],
            [[0.1, 1], [0.1, 2], [0.2, 1]],
            [[0.1, 1], [0.1, 1], [0.2, 2], [0.2, 2]],
            [[0.1, 1], [0.1, 1]],
            [[0.1, 1], [0.1, 2], [0.2, 1], [0.2, 1]],
        ],
        ids=["diagonal", "incomplete", "repeated pairs", "repeated", "one twice"],
    )
    def test_what_is_no_product_is_a_list(self, rows):
        runs, nums = a_list(rows)
        rows = np.array(rows)
        named = runs.assign_coords(job=nums)
        xr.testing.assert_identical(arranged(named, {"rate": rows[:, 0], "seed": rows[:, 1]}), named)

    def test_what_all_share_is_a_scalar(self):
        runs, nums = a_list([0.1, 0.2])
        folded = arranged(runs.assign_coords(job=nums), {"rate": np.array([0.1, 0.2]), "seed": np.array([3, 3])})
        assert folded.f.dims == ("rate",)
        assert (folded.seed.dims, int(folded.seed)) == ((), 3)
        alone, nums = a_list([0.1])
        assert arranged(alone.assign_coords(job=nums), {"rate": np.array([0.1])}).f.dims == ()

    def test_two_keys_that_end_alike_keep_their_names(self):
        assert [label(key, ["a.rate", "b.rate", "c.seed"]) for key in ("a.rate", "b.rate", "c.seed")] == ["a.rate", "b.rate", "seed"]


class TestArchive:
    """After each batch of jobs every job so far is on disk, under its own number."""

    @pytest.mark.parametrize(
        "batches",
        [
            [{"": 4}],
            [{"": 4}, {"": 3}, {"": 1}, {"": 2}],
            [{"a": 2, "b": 2}, {"a": 1}, {"b": 1}, {"c": 2}, {"a": 1, "c": 1}],
            [{"a": 2}, {"a": 2}, {"a": 2}, {"b": 1}, {"a": 1}],
            [{"a": 1}, {"a": 1}, {"a": 1}, {"a": 1}, {"b": 2}],
            [{"a": 2}, {}, {"a": 1}, {}, {"a": 1}],
        ],
        ids=["one", "grows", "groups come and go", "a group comes late", "very late", "failed batches between"],
    )
    def test_every_state_reopens(self, tmp_path, batches):
        archive, known = Archive(tmp_path), {}
        for batch in batches:
            for name, count in batch.items():
                runs, nums = a_list(range(count), first=len(known), seconds=[1.0, 2.0])
                rates = 0.5 + nums
                archive.add(name, runs, {"m.rate": rates}, nums.tolist())
                known |= dict(zip(nums.tolist(), rates.tolist(), strict=True))
            archive.save()
            for num, rate in known.items():
                job = gdjax.open_results(tmp_path / str(num))
                assert (float(job.f), float(job.rate), int(job.job), job.curve.values.tolist()) == (10.0 * num, rate, num, [num] * 3)
                assert job.attrs["seconds"] == [1.0, 2.0]

    def test_one_batch_is_arranged_and_a_second_makes_a_list(self, tmp_path):
        archive = Archive(tmp_path)
        for first, dims in ((0, ("rate",)), (2, ("job",))):
            runs, nums = a_list(range(2), first=first)
            archive.add("", runs, {"rate": 0.5 + nums}, nums.tolist())
            archive.save()
            assert gdjax.open_results(tmp_path).f.dims == dims


SETTINGS = OmegaConf.create({"offset": 1.5, "rate": "???", "seed": "???"})


def of(numbers):
    return Batch(settings=SETTINGS, numbers={key: np.asarray(column) for key, column in numbers.items()})


class TestVmapped:
    """A batch of jobs is each job alone."""

    @staticmethod
    def noisy(settings, rate, seed):
        noise = jax.random.normal(jax.random.key(seed), (5,))
        curve = jnp.cumsum(noise * rate) + settings.offset
        return {"objective": jnp.sum(curve**2), "curve": curve, "final": (curve[-1], seed)}

    def test_values_are_those_of_the_task_called_alone(self):
        rates, seeds = np.linspace(0.1, 2.0, 11), np.arange(11)
        outcome = of_task(batchable(rate=float, seed=int)(self.noisy)).run(of({"rate": rates, "seed": seeds}))
        assert len(outcome.values) == 11
        for value, rate, seed in zip(outcome.values, rates, seeds, strict=True):
            alone = self.noisy(SETTINGS, rate, seed)
            assert isinstance(value["objective"], float)
            assert value["objective"] == pytest.approx(float(alone["objective"]), rel=1e-5)  # XLA may sum in another order under vmap
            np.testing.assert_allclose(value["curve"], alone["curve"], rtol=1e-5)
            assert value["final"][1] == seed
        assert {name: array.dims for name, array in outcome.results.items()} == {
            "objective": ("job",), "curve": ("job", "curve_0"), "final.0": ("job",), "final.1": ("job",)
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("value", "wanted", "names"),
        [
            (lambda rate: rate**2, [1.0, 4.0], ["objective"]),
            (lambda rate: (rate, -rate), [(1.0, -1.0), (2.0, -2.0)], ["objective_0", "objective_1"]),
            (lambda rate: 100, [100, 100], ["objective"]),
            (
                lambda rate: {"objective": rate, "flag": rate > 1},
                [{"flag": False, "objective": 1.0}, {"flag": True, "objective": 2.0}],
                ["flag", "objective"],
            ),
        ],
        ids=["a number", "a tuple", "a constant", "a dict"],
    )
    def test_what_a_task_returns_keeps_its_shape(self, value, wanted, names):
        outcome = of_task(batchable(rate=float)(lambda settings, rate: value(rate))).run(of({"rate": [1.0, 2.0]}))
        assert outcome.values == wanted
        assert list(outcome.results) == names
        assert batchable(rate=float)(lambda settings, rate: value(rate))(OmegaConf.create({"rate": 2.0})) == wanted[1]

    def test_a_task_that_returns_nothing_has_no_results(self):
        outcome = of_task(batchable(rate=float)(lambda settings, rate: None)).run(of({"rate": [1.0, 2.0]}))
        assert (list(outcome.values), outcome.results) == ([None, None], None)

    def test_lengths_up_to_a_power_of_two_share_a_trace(self):
        traced = []
        spec = of_task(batchable(rate=float)(lambda settings, rate: traced.append(0) or 2 * rate))
        for length, traces in ((5, 1), (8, 1), (6, 1), (9, 2), (16, 2), (1, 3)):
            assert spec.run(of({"rate": np.arange(length) / 4})).values == (np.arange(length) / 2).tolist()
            assert len(traced) == traces

    def test_other_settings_are_another_program(self):
        spec = of_task(batchable(rate=float)(lambda settings, rate: settings.offset * rate))
        for offset in (2.0, 3.0, 2.0):
            settings = OmegaConf.create({"offset": offset, "rate": "???"})
            assert spec.run(Batch(settings=settings, numbers={"rate": np.array([1.0, 2.0])})).values == [offset, 2 * offset]

    @pytest.mark.parametrize("message", ["RESOURCE_EXHAUSTED: no", "XlaRuntimeError: Out of memory while trying"])
    def test_too_little_memory_halves_the_batch(self, monkeypatch, message):
        jit, lengths = jax.jit, []

        def small_device(function):
            def call(columns):
                lengths.append(len(columns["rate"]))
                if lengths[-1] > 4:
                    raise jax.errors.JaxRuntimeError(message)
                return jit(function)(columns)

            return call

        monkeypatch.setattr(jax, "jit", small_device)
        spec = of_task(batchable(rate=float)(lambda settings, rate: {"objective": rate**2, "curve": jnp.stack([rate, -rate])}))
        outcome = spec.run(of({"rate": np.arange(11.0)}))
        assert [value["objective"] for value in outcome.values] == (np.arange(11.0) ** 2).tolist()
        assert outcome.results.curve.values.tolist() == [[rate, -rate] for rate in np.arange(11.0)]
        assert lengths == [16, 8, 2, 4, 8, 4, 4]

    def test_another_error_of_the_device_is_raised(self, monkeypatch):
        def broken(columns):
            raise jax.errors.JaxRuntimeError("INTERNAL: no")

        monkeypatch.setattr(jax, "jit", lambda function: broken)
        with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
            of_task(batchable(rate=float)(lambda settings, rate: rate)).run(of({"rate": [1.0, 2.0]}))

    def test_whole_numbers_that_do_not_fit_are_refused(self, mistake):
        spec = of_task(batchable(seed=int)(lambda settings, seed: seed))
        with jax.enable_x64(False):
            assert "seed=4294967303 is not allowed: it does not fit int32" in mistake(spec.run, of({"seed": [1, 2**32 + 7]}))
            assert spec.run(of({"seed": [1, 2**31 - 1]})).values == [1, 2**31 - 1]
        assert spec.run(of({"seed": [1, 2**32 + 7]})).values == [1, 2**32 + 7]

    def test_a_null_number_is_none_to_the_task(self):
        spec_of = batchable(rate=float, momentum=float)
        called = spec_of(lambda settings, rate, momentum: rate if momentum is None else rate + momentum)
        assert called(OmegaConf.create({"rate": 1.0, "momentum": None})) == 1.0
        assert called(OmegaConf.create({"rate": 1.0, "momentum": 0.5})) == 1.5
        spec = of_task(called)
        assert one(OmegaConf.create({"rate": 1.0, "momentum": None}), spec).numbers.keys() == {"rate"}

    def test_a_declared_number_cannot_be_read_from_the_settings(self):
        spec = of_task(batchable(rate=float)(lambda settings, rate: settings.rate + rate))
        with pytest.raises(MissingMandatoryValue, match="rate"):
            spec.run(of({"rate": [1.0, 2.0]}))


class TestMultirun:
    """One return a job, in their order, whatever ran together."""

    @pytest.fixture(autouse=True)
    def _here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def test_returns_are_in_the_order_of_the_jobs(self, app):
        jobs = [f"seed={seed} model={model} rate={rate}" for seed in (0, 1) for model in ("small", "big") for rate in (1, 2)]
        returned = app.launch(task, jobs)
        assert [job.overrides for job in returned] == [job.split() for job in jobs]
        assert [job.return_value for job in returned] == pytest.approx(
            [rate + seed * width + 0.9 for seed in (0, 1) for width in (4, 8) for rate in (1, 2)]
        )

    def test_jobs_without_a_number_have_a_value_each(self, app):
        alone = batchable(momentum=float)(lambda settings, momentum: settings.model.width)
        assert [job.return_value for job in app.launch(alone, ["model=small", "model=twin", "model=big"])] == [4, 4, 8]

    @pytest.mark.parametrize("max_batch", [None, 1, 3, 100])
    @pytest.mark.parametrize(("reduce", "of_four"), [("mean", 1.5), ("median", 1.5)])
    def test_replicates_are_one_objective_a_job(self, app, tmp_path, max_batch, reduce, of_four):
        counted = batchable(rate=float, seed=int)(lambda settings, rate, seed: rate + seed)
        returned = app.launch(counted, ["rate=1 seed=5", "rate=2 seed=5"], replicate={"seed": 4, "reduce": reduce}, max_batch=max_batch)
        assert [job.return_value for job in returned] == [6 + of_four, 7 + of_four]
        results = gdjax.open_results(tmp_path / "many")
        assert results.objective.dims == ("rate", "seed")
        assert results.objective.values.tolist() == [[6, 7, 8, 9], [7, 8, 9, 10]]
        assert results.seed.values.tolist() == [5, 6, 7, 8]
        assert results.job.values.tolist() == [0, 1]

    def test_the_median_is_not_the_mean(self, app):
        skewed = batchable(seed=int)(lambda settings, seed: (seed**2, -seed))
        (job,) = app.launch(skewed, ["seed=0"], replicate={"seed": 5, "reduce": "median"})
        assert job.return_value == [4, -2]
        (job,) = app.launch(skewed, ["seed=0"], replicate={"seed": 5})
        assert job.return_value == [6, -2]

    @pytest.mark.parametrize("worst", [math.inf, -1.0])
    def test_what_is_not_finite_is_told_as_the_worst(self, app, tmp_path, worst):
        returned = app.launch(batchable(rate=float)(lambda settings, rate: jnp.log(rate)), ["rate=1", "rate=0", "rate=-1"], worst=worst)
        assert [job.return_value for job in returned] == [0.0, worst, worst]
        kept = gdjax.open_results(tmp_path / "many").objective.values
        assert np.isnan(kept[2])  # the results say what it was
        assert kept[1] == -math.inf

    def test_a_batch_that_fails_is_its_jobs_alone(self, app, tmp_path):
        def run(batch):
            if batch.settings.model.name == "big":
                raise RuntimeError("too\nbig")
            return Outcome(values=batch.numbers["rate"].tolist(), results=xr.Dataset({"f": ("job", batch.numbers["rate"])}))

        fragile = batchable(rate=float, run=run)(lambda settings: None)
        returned = app.launch(fragile, ["model=small rate=1", "model=big rate=1", "model=small rate=2", "model=big rate=2"])
        assert [job.status.name for job in returned] == ["COMPLETED", "FAILED", "COMPLETED", "FAILED"]
        assert [returned[0].return_value, returned[2].return_value] == [1, 2]
        with pytest.raises(RuntimeError, match="too"):
            _ = returned[1].return_value
        rows = (tmp_path / "many" / "jobs.csv").read_text().splitlines()
        assert len(rows) == 5
        assert [bool(re.search(r"failed,too big", row)) for row in rows] == [False, False, True, False, True]
        assert gdjax.open_results(tmp_path / "many").f.values.tolist() == [1, 2]

    def test_an_unknown_key_to_replicate_is_a_mistake_that_leaves_nothing(self, app, tmp_path):
        with pytest.raises(CompactHydraException, match="Did you mean 'seed'"):
            app.launch(task, ["rate=1"], replicate={"sed": 4})
        assert list(tmp_path.iterdir()) == []
