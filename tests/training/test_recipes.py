"""The recipes train what the survey's table of training recipes marks, and see the data that it marks."""

import csv
from pathlib import Path

import pytest
import yaml

import conf
from embodied.cli.zoo import entry, names
from embodied.training.stages import check_stages

FILES = sorted((Path(str(conf.__file__)).parent / "recipe").glob("*.yaml"))
RECIPES = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8"))["recipe"] for file in FILES}
SURVEY = Path(__file__).resolve().parents[3] / "shared" / "survey" / "seed_training.csv"
KINDS = {"pairs", "regions", "interleaved", "scenes", "text", "instructions"}
LANGUAGE = {"✗": None, "✓(F)": "full", "✓(P)": "peft", "UNK": "full"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_whole(name):
    recipe = RECIPES[name]
    check_stages(recipe["stages"], name)
    assert recipe["name"] == name
    for stage in recipe["stages"].values():
        assert set(stage["data"]) <= KINDS
        assert stage["lr"] > 0


def test_a_row_names_the_recipe_that_names_it():
    said = {row: name for name, recipe in RECIPES.items() for row in recipe["rows"]}
    rows = {entry(key).row.name: entry(key).row.recipe for key in names()}
    assert {name: recipe for name, recipe in rows.items() if recipe} == said


def survey():
    if not SURVEY.exists():
        return []
    with SURVEY.open(encoding="utf-8") as file:
        return [line for line in csv.DictReader(file) if line["table"] == "9"]


def test_each_row_of_the_table_has_one_recipe():
    if not SURVEY.exists():
        pytest.skip(f"{SURVEY.name} is not here")
    listed = [row for recipe in RECIPES.values() for row in recipe["rows"]]
    assert sorted(listed) == sorted(line["name"] for line in survey())


@pytest.mark.parametrize("line", survey(), ids=lambda line: line["name"])
def test_a_recipe_trains_and_sees_what_the_table_marks(line):
    recipe = next(recipe for recipe in RECIPES.values() if line["name"] in recipe["rows"])
    stages = recipe["stages"]
    if line["pt_multi_stage"] == "UNK":  # nothing is known but that it was trained
        assert set(stages) == {"tune"}
    else:
        assert ("align" in stages) == (line["pt_multi_stage"] == "✓")
        assert ("pretrain" in stages) == (line["pt_llm_backbone"] != "-")
        assert ("tune" in stages) == (line["ift_llm_backbone"] != "-")
    if "align" in stages:
        assert trained(stages["align"]) == {"connector", "adapters"} and stages["align"]["data"] == ["pairs"]
    if "pretrain" in stages:
        agrees(stages["pretrain"], line["pt_modality_encoder"], line["pt_llm_backbone"])
        for kind, mark in (("scenes", "scene_oriented_data"), ("text", "text_only"), ("interleaved", "interleaved")):
            assert (kind in stages["pretrain"]["data"]) == (line[f"pt_{mark}"] in ("✓", "UNK")), kind
    if "tune" in stages:
        agrees(stages["tune"], line["ift_modality_encoder"], line["ift_llm_backbone"])
        assert "instructions" in stages["tune"]["data"]
        assert ("text" in stages["tune"]["data"]) == (line["ift_text_only_data"] in ("✓", "UNK"))


def trained(stage):
    return {part for part, mode in stage["train"].items() if mode != "frozen"}


def agrees(stage, encoder, language):
    assert ("encoder" in trained(stage)) == (encoder in ("✓", "UNK"))
    assert stage["train"].get("backbone") == LANGUAGE[language]
    assert stage["train"]["connector"] == "full"
