"""The Python API does what the command does."""

from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError

import pytest

import advisor
from advisor import Estimate, Job, Plan, RequestError, advise, estimate
from advisor.cli.run import run

KEYS = {"gpu": "v100-16", "train": "7b", "estimator": "checklist", "max_gpus": 4}


def test_everything_that_is_promised_is_there() -> None:
    """`from advisor import …` and dir(), and nothing else by accident."""
    for name in advisor.__all__:
        assert getattr(advisor, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        advisor.nothing  # noqa: B018


def test_a_job_is_given_by_its_keys_by_itself_or_by_both() -> None:
    """Three ways to say the same."""
    by_keys = advise(**KEYS)
    assert isinstance(by_keys, Plan)
    assert advise(Job(**KEYS)).to_dict() == by_keys.to_dict()
    assert (
        advise(Job(gpu="v100-16", train="7b", batch=8), batch=1, estimator="checklist", max_gpus=4).to_dict()
        == by_keys.to_dict()
    )


def test_a_plan_goes_to_another_process() -> None:
    """With its parts, its host and its snippets, of which some are put together when they are shown."""
    plan = advise(gpu="a100-40", train="7b", batch=8, gpus=2, zero=2, offload="optimizer")
    assert plan.steps
    assert plan.initial.host
    assert pickle.loads(pickle.dumps(plan)).to_dict() == plan.to_dict()


def test_a_job_is_a_value() -> None:
    """Equal keys make equal jobs, wherever they were made, and none can be changed."""
    job = Job(**KEYS)
    assert job == Job(**KEYS) == pickle.loads(pickle.dumps(job))
    assert hash(job) == hash(Job(**KEYS))
    assert job != job.with_changes(batch=2) == Job(**KEYS, batch=2)
    assert job.batch is None
    with pytest.raises(FrozenInstanceError):
        job.batch = 2  # type: ignore[misc]


def test_a_job_keeps_the_config_that_it_was_given() -> None:
    """What becomes of the caller's object afterwards is the caller's; one that is no JSON is refused."""
    config = {"model_type": "llama"}
    job = Job(train=config)
    config["model_type"] = "gpt2"
    assert job.train == {"model_type": "llama"}
    with pytest.raises(RequestError, match=r"config\.json"):
        Job(train={1: 2})


def test_an_estimate_is_the_first_of_the_plan() -> None:
    """estimate() walks nowhere."""
    alone = estimate(**KEYS)
    assert isinstance(alone, Estimate)
    assert alone.to_dict() == advise(**KEYS).initial.to_dict()


def test_the_command_prints_the_dictionary_of_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """One promise, two doors."""
    words = ["--gpu", "v100-16", "--train", "7b", "--estimator", "checklist", "--max-gpus", "4", "--format", "json"]
    plan = advise(**KEYS)
    assert run(words) == plan.exit_code
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(plan.to_dict()))


def test_the_job_of_a_plan_is_a_job() -> None:
    """What is printed can be asked again, with the same answer."""
    plan = advise(**KEYS)
    assert advise(**plan.job).initial.to_dict() == plan.initial.to_dict()


@pytest.mark.parametrize("ask", [advise, estimate])
def test_what_is_no_job_is_refused(ask: object) -> None:
    """A name alone is not one, nor is a key that is none."""
    assert callable(ask)
    with pytest.raises(RequestError, match="a Job or the keys of one"):
        ask("7b")
    with pytest.raises(RequestError, match="did you mean batch"):
        ask(gpu="v100-16", train="7b", bach=1)


def test_a_notebook_gets_markdown() -> None:
    """The verdict first."""
    assert advise(**KEYS)._repr_markdown_().startswith("**")
