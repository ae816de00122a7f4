"""Members of a family by name: built in, or brought by a package's entry points."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import jsonschema
import pytest
from pydantic import Field

from mig_spark.config.base import Section
from mig_spark.config.kinds import OneOf
from mig_spark.config.load import build_part
from mig_spark.errors import ConfigError, DependencyError
from mig_spark.plugins import Registry

GROUP = "mig_spark.test_shapes"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a package with one module and its entry points on the path, as an installer would."""

    def put(module: str, code: str, points: dict[str, str], *, package: str | None = None) -> None:
        root = tmp_path / f"site-{package or module}"
        info = root / f"{package or module}-1.0.dist-info"
        info.mkdir(parents=True)
        (root / f"{module}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package or module}\nVersion: 1.0\n")
        lines = [f"[{GROUP}]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(str(root))
        monkeypatch.delitem(sys.modules, module, raising=False)

    before = set(sys.modules)
    yield put
    for name in set(sys.modules) - before:
        if name.startswith("toy_"):
            del sys.modules[name]


def shapes(**options: str) -> Registry[type]:
    return Registry("shape", GROUP, {"round": "fractions:Fraction", "square": "decimal:Decimal"}, **options)


def test_built_in_members_come_by_name() -> None:
    from decimal import Decimal

    assert shapes().names() == ("round", "square")
    assert shapes().get("square") is Decimal
    assert list(shapes().all()) == ["round", "square"]


def test_a_packages_member_is_imported_when_it_is_named_and_not_before(install) -> None:
    install("toy_star", "class Star: pass", {"star": "toy_star:Star"})
    family = shapes()
    assert family.names() == ("round", "square", "star")
    assert "toy_star" not in sys.modules
    assert family.get("star").__module__ == "toy_star"
    assert list(family.all()) == ["round", "square", "star"]


def test_an_unknown_name_is_told_with_the_known_ones_and_the_nearest(install) -> None:
    install("toy_star", "class Star: pass", {"star": "toy_star:Star"})
    with pytest.raises(ConfigError, match=r"'stars' is no shape: known are round, square, star; did you mean 'star'\?"):
        shapes().get("stars")
    with pytest.raises(ConfigError, match=rf"known are round, square, star \(.*{GROUP}"):
        shapes().get("zzz")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("raise KeyError('torn')", "KeyError: 'torn'"),
        ("class Other: pass", "AttributeError: .*Star"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named_with_the_reason(install, caplog, code: str, words: str) -> None:
    install("toy_broken", code, {"star": "toy_broken:Star"})
    with pytest.raises(DependencyError, match=f"the shape 'star' of toy_broken, toy_broken:Star cannot .*{words}") as e:
        shapes().get("star")
    assert e.value.exit_code == 2
    assert list(shapes().all()) == ["round", "square"]
    assert "toy_broken" in caplog.text


@pytest.mark.parametrize("code", ["class Star: pass", "def Star(): pass"])
def test_what_does_not_extend_the_families_class_is_refused(install, code: str) -> None:
    install("toy_star", code, {"star": "toy_star:Star"})
    with pytest.raises(DependencyError, match=r"not a class that extends numbers:Number"):
        shapes(base="numbers:Number").get("star")


def test_a_built_in_name_stays_what_it_is(install, caplog) -> None:
    from decimal import Decimal

    install("toy_star", "class Star: pass", {"square": "toy_star:Star"})
    assert shapes().names() == ("round", "square")
    assert shapes().all()["square"] is Decimal
    assert "the shape square is built in: that of toy_star, toy_star:Star is not used" in caplog.text
    assert "toy_star" not in sys.modules


def test_one_name_from_two_packages_is_refused(install) -> None:
    install("toy_one", "class Star: pass", {"star": "toy_one:Star"})
    install("toy_two", "class Star: pass", {"star": "toy_two:Star"})
    with pytest.raises(DependencyError, match=r"toy_one, toy_one:Star and toy_two, toy_two:Star: uninstall all but"):
        shapes().get("star")


class Disc(Section):
    kind: Literal["disc"] = "disc"
    radius: float = 1.0


class Box(Section):
    kind: Literal["box"] = "box"
    sides: list[float]


FAMILY: Registry[type[Section]] = Registry("shape", GROUP, {"disc": f"{__name__}:Disc", "box": f"{__name__}:Box"})


class Drawing(Section):
    shape: Annotated[Section, OneOf(FAMILY)] = Field({"kind": "disc"}, validate_default=True)  # type: ignore[assignment]
    inner: Annotated[Section | None, OneOf(FAMILY, only=lambda model: model is not Box)] = None


def test_a_section_of_a_family_is_checked_by_the_member_that_its_kind_names() -> None:
    assert Drawing().shape == Disc()
    drawing = build_part(Drawing, {"shape": {"kind": "box", "sides": [1, 2]}}, where="c")
    assert drawing.shape == Box(sides=[1, 2])
    assert drawing.model_dump(mode="json") == {"shape": {"kind": "box", "sides": [1.0, 2.0]}, "inner": None}
    assert Drawing(shape=Disc(radius=2)).shape == Disc(radius=2)


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"shape": {"kind": "dics"}}, "shape.kind = 'dics': no shape has this name: known are disc, box; did you mean"),
        ({"shape": {"radius": 1}}, "shape.kind: it names a shape: known are disc, box"),
        ({"shape": {"kind": "disc", "radus": 1}}, "unknown key 'shape.radus', did you mean 'radius'?"),
        ({"shape": {"kind": "disc", "radius": "x"}}, "shape.radius = 'x': "),
        ({"shape": {"kind": "box"}}, "'shape.sides' is missing"),
        ({"shape": "disc"}, "shape = 'disc': give a mapping with the key kind"),
        ({"inner": {"kind": "box", "sides": []}}, "inner.kind = 'box': this shape cannot stand here, but disc can"),
    ],
)
def test_what_is_wrong_in_such_a_section_is_named_with_its_key(plain: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_part(Drawing, plain, where="c")
    assert words in str(caught.value)


def test_the_schema_of_such_a_section_has_every_member(install) -> None:
    code = (
        "from typing import Literal\nfrom mig_spark.config.base import Section\n"
        "class Star(Section):\n    kind: Literal['star'] = 'star'\n    points: int = 5\n"
    )
    install("toy_star", code, {"star": "toy_star:Star"})
    schema = Drawing.model_json_schema()
    assert set(schema["properties"]["shape"]["discriminator"]["mapping"]) == {"disc", "box", "star"}
    assert set(schema["properties"]["inner"]["discriminator"]["mapping"]) == {"disc", "star"}
    jsonschema.validate({"shape": {"kind": "star", "points": 6}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"shape": {"kind": "star", "pionts": 6}}, schema)
    assert Drawing(shape={"kind": "star"}).shape.model_dump() == {"kind": "star", "points": 5}
