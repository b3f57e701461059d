from __future__ import annotations

from importlib.metadata import version

import pytest

from learner.machine import fingerprint, same_kind

OLD = "x86_64 · A processor · AVX2 · torch 2.9.0 · numpy 2.3.0"
NEW = f"{OLD} · av 16.0.1"


def test_a_machine_is_of_its_own_kind_and_names_what_decodes_images() -> None:
    assert same_kind(fingerprint(), fingerprint())
    assert fingerprint().split(" · ")[-1] == f"av {version('av')}"
    assert fingerprint(seeing=False) == fingerprint().rsplit(" · ", 1)[0]


def test_a_journal_that_does_not_name_a_library_is_of_the_same_kind_and_says_nothing_of_it() -> None:
    assert same_kind(OLD, NEW)
    assert same_kind(NEW, OLD)
    assert same_kind(fingerprint(), fingerprint(seeing=False))


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        ("av 16.0.1", "av 15.1.0"),
        ("torch 2.9.0", "torch 2.9.1"),
        ("numpy 2.3.0", "numpy 2.2.0"),
        ("AVX2", "AVX512"),
        ("A processor", "Another"),
        ("x86_64", "aarch64"),
        (" · A processor", ""),
    ],
)
def test_every_part_that_both_name_must_be_the_same(was: str, is_now: str) -> None:
    assert was in NEW
    assert not same_kind(NEW, NEW.replace(was, is_now))
    assert not same_kind(NEW.replace(was, is_now), NEW)


def test_what_is_no_such_line_is_another_kind() -> None:
    assert not same_kind("a machine of another kind", NEW)
    assert same_kind("", "")
