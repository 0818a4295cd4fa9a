"""The verdict: a table of what was measured and what it means, and properties that hold for any figures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatwater.memory.verdict import Evidence, Inner, Point, Verdict, climbing, judge, steady

MIB = 1 << 20
SECONDS = 10
KINDS = {
    "python-objects",
    "cyclic-garbage",
    "malloc-free",
    "pymalloc-pinned",
    "native",
    "thread-stacks",
    "page-cache",
    "plateau",
}


def evidence(
    *,
    anon: float = 0,
    file: float = 0,
    threads: float = 0,
    blocks: float = 0,
    used: float = 0,
    free: float = 0,
    start: int = 100 * MIB,
    frozen: float = 0,
    **more: object,
) -> Evidence:
    """Straight lines: each figure's growth per second, over ten seconds."""
    points = tuple(
        Point(
            at=at / 10,
            rss=int(start + (anon + file) * at / 10),
            anon=int(start + anon * at / 10),
            file=int(10 * MIB + file * at / 10),
            threads=int(5 + threads * at / 10),
        )
        for at in range(SECONDS * 10)
    )
    inner = tuple(
        Inner(
            at=at / 4,
            blocks=int(1e6 + blocks * at / 4),
            used=int(20 * MIB + used * at / 4),
            free=int(MIB + free * at / 4),
            frozen=int(frozen * at / 4),
        )
        for at in range(SECONDS * 4)
    )
    return Evidence(window_s=float(SECONDS), points=points, inner=inner, **more)  # type: ignore[arg-type]


def objects(per_s: float) -> tuple[int, int]:
    return 50 * MIB, int(50 * MIB + per_s * SECONDS)


def waste(**more: object) -> Evidence:
    return evidence(anon=MIB, blocks=9000, object_bytes=objects(MIB), garbage=9 * MIB, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "kind", "growing"),
    [
        (evidence(), "plateau", False),
        (evidence(anon=3000), "plateau", False),  # 30 kB in the window: a few pages
        (evidence(anon=MIB, blocks=9000, object_bytes=objects(MIB)), "python-objects", True),
        # RSS has made no step yet, Python's own figures have
        (evidence(blocks=100, object_bytes=objects(8000), containers=1), "python-objects", True),
        (waste(collector=False), "cyclic-garbage", True),
        (waste(thresholds=(0, 10, 10)), "cyclic-garbage", True),
        (waste(frozen=500), "cyclic-garbage", True),
        # garbage, but the collector works: what is left when it has run does not grow
        (evidence(blocks=9000, object_bytes=objects(MIB), garbage=10 * MIB), "plateau", False),
        (evidence(anon=MIB, used=MIB), "native", True),
        (evidence(anon=MIB), "native", True),
        (evidence(anon=MIB, free=MIB), "malloc-free", True),
        (evidence(anon=MIB, pinned=(0, 9 * MIB)), "pymalloc-pinned", True),
        (evidence(anon=0.5 * MIB, threads=8), "thread-stacks", True),
        (evidence(file=MIB), "page-cache", True),
        (evidence(returnable=80 * MIB), "malloc-free", False),
        (evidence(pinned=(80 * MIB, 80 * MIB)), "pymalloc-pinned", False),
    ],
)  # fmt: skip
def test_kind(case: Evidence, kind: str, growing: bool):
    verdict = judge(case)
    assert (verdict.kind, verdict.growing) == (kind, growing), verdict.reason


def test_growth_that_does_not_go_on_is_a_plateau():
    """A cache that fills up and is full."""
    points = tuple(Point(at=at / 10, rss=value, anon=value) for at in range(100) for value in [min(at, 30) * MIB])
    assert judge(Evidence(window_s=10, points=points)).kind == "plateau"


def test_two_causes_are_both_named():
    verdict = judge(evidence(anon=4 * MIB, blocks=9000, object_bytes=objects(MIB), used=4 * MIB))
    assert verdict.kind == "native"
    assert [part.kind for part in verdict.others] == ["python-objects"]


def test_entries_of_a_growing_container_own_the_native_memory_beside_it():
    verdict = judge(evidence(anon=2 * MIB, used=2 * MIB, object_bytes=objects(MIB / 2), blocks=900, containers=1))
    assert verdict.kind == "python-objects"
    assert "native" in verdict.reason


def test_native_memory_beside_a_small_container_is_its_own_when_the_entries_can_own_it():
    rows = {"anon": 2 * MIB, "used": 2 * MIB, "object_bytes": objects(4000), "blocks": 90, "containers": 1}
    assert judge(evidence(**rows)).kind == "native"  # type: ignore[arg-type]
    assert judge(evidence(**rows, foreign=True)).kind == "python-objects"  # type: ignore[arg-type]


def test_one_collection_in_the_window_hides_no_growth():
    points = [(at * 0.18, 82_000.0 + 65 * at - 750 * (at > 28)) for at in range(36)]
    assert steady(points, 20) is None
    line = climbing(points, 20)
    assert line is not None
    assert line.low < 300 < line.high
    saw = [(at * 0.18, 82_000.0 + 65 * at % 650) for at in range(36)]
    assert climbing(saw, 20) is None


def test_what_fills_up_to_a_bound_is_no_growth():
    rows = {"anon": MIB, "blocks": 9000, "object_bytes": objects(MIB)}
    assert judge(evidence(**rows, filling_per_s=MIB)).kind == "plateau"  # type: ignore[arg-type]


def test_time_to_the_limit():
    verdict = judge(evidence(anon=MIB, used=MIB, limit=400 * MIB, headroom=300 * MIB))
    assert verdict.limit_in_s == pytest.approx(300, rel=0.05)
    assert judge(evidence(limit=400 * MIB, headroom=300 * MIB)).limit_in_s is None


def test_nothing_measured_is_a_plateau():
    assert judge(Evidence(window_s=0.0, points=())).kind == "plateau"


amounts = st.integers(0, 8 * MIB)


@given(
    anon=amounts,
    file=amounts,
    threads=st.integers(0, 20),
    blocks=st.integers(0, 100_000),
    used=amounts,
    free=amounts,
    gained=amounts,
    garbage=amounts,
    collector=st.booleans(),
)
def test_verdict_is_always_consistent(collector: bool, garbage: int, gained: int, **figures: int):
    case = evidence(collector=collector, garbage=garbage, object_bytes=objects(gained), headroom=MIB, **figures)
    verdict: Verdict = judge(case)
    assert verdict.kind in KINDS
    low, high = verdict.ci
    assert low <= verdict.slope_bytes_per_s <= high
    assert verdict.reason
    assert (verdict.limit_in_s is not None) <= verdict.growing
    if verdict.kind == "plateau":
        assert not verdict.growing
        assert not verdict.others
    if collector:
        assert verdict.kind != "cyclic-garbage"


@given(shift=st.floats(0, 1e6), rss=st.integers(1, 1 << 40))
def test_verdict_does_not_depend_on_when_it_was(shift: float, rss: int):
    case = evidence(start=rss)
    moved = Evidence(
        window_s=case.window_s,
        points=tuple(Point(at=p.at + shift, rss=p.rss, anon=p.anon, threads=p.threads) for p in case.points),
    )
    assert judge(moved).kind == "plateau"
