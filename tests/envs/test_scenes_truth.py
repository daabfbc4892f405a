"""All that a data set of scenes says is true: each answer is worked out again here, from words and scenes alone."""

import json
import re
from collections import Counter, defaultdict
from itertools import combinations, permutations

import pytest

from embodied.data.multimodal.sample import Sample
from envs.scenes.maker import SceneMaker
from envs.scenes.painter import Painter
from envs.scenes.thoughts import ANSWER, FROM_NEAR, THINK

pytestmark = pytest.mark.simulator("pybullet")
SIZE = 128
SPLITS = ("train", "val", "test", "unseen")
SETTINGS = {"scenes": 120, "videos": 0, "splits": {"train": 0.6, "val": 0.1, "test": 0.15, "unseen": 0.15}, "seed": 1}
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "gray")
SHAPES = ("cube", "ball", "cylinder", "cone", "ring", "cross")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes")
    maker = SceneMaker(SETTINGS)
    painter = Painter(str(out), maker.settings)
    for stretch in maker.begin(out)[0]:
        painter.paint(*stretch)
    painter.close()
    maker.finish(out)
    return out


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def scenes(made):
    return {row["number"]: row for split in SPLITS for row in lines(made / f"scenes/{split}.jsonl")}


def samples(made, task):
    return [(split, row) for split in SPLITS for row in lines(made / f"chat/{split}/{task}.jsonl")]


# Reading English without the code that wrote it


def things_called(name, things):
    """The things that a noun phrase without an article fits."""
    words = {re.sub(r"^(cross)es$|s$", r"\1", word) if word not in ("cross",) else word for word in name.split()}
    found = things
    for word in words:
        if word == "thing":
            continue
        keys = [key for key in ("size", "texture", "colour", "shape") if any(word == t[key] for t in EVERY[key])]
        assert keys, f"'{word}' of '{name}' is no word"
        found = [thing for thing in found if thing[keys[0]] == word]
    return found


EVERY = {
    "size": [{"size": s} for s in ("small", "large")],
    "texture": [{"texture": t} for t in ("plain", "striped", "checked")],
    "colour": [{"colour": c} for c in COLOURS],
    "shape": [{"shape": s} for s in SHAPES],
}


def the(name, things):
    found = things_called(name, things)
    assert len(found) == 1 and found[0]["seen"], f"'{name}' fits {len(found)} things"
    return found[0]


def yes(true):
    return "yes" if true else "no"


BIG = {"small": 0, "large": 1}
RULES = [
    (r"(?:Is there|Can you see) an? (.+?)(?: on the table| in the picture| in the image)?\?", "exist"),
    (r"How many (.+?) (?:are there|can you see)\?|What is the number of (.+)\?", "count"),
    (r"(?:What|Which) (colour|shape|size) is the (.+)\?|What (texture) does the (.+) have\?", "attribute"),
    (r"What is the (colour|shape|size|texture) of the (.+)\?", "attribute"),
    (r"Is the (.+) to the left or to the right of the (.+)\?", "side"),
    (r"On which side of the (.+) is the (.+), left or right\?", "side of"),
    (r"Is the (.+?) (?:to the )?left of the (.+)\?", "left"),
    (r"Is the (.+?) (?:to the )?right of the (.+)\?", "right"),
    (r"Is the (.+) (?:in front of|closer to the camera than) the (.+)\?", "front"),
    (r"Is the (.+) (?:behind|farther away than) the (.+)\?", "behind"),
    (r"Is the (.+) (?:bigger|larger) than the (.+)\?", "bigger"),
    (r"Is the (.+) smaller than the (.+)\?", "smaller"),
    (r"Are the (.+) and the (.+) the same size\?|Is the (.+) as big as the (.+)\?", "same"),
    (r"Are there more (.+) than (.+)\?", "more"),
    (r"Are there fewer (.+) than (.+)\?", "fewer"),
    (r"Are there as many (.+) as (.+)\?|Is the number of (.+) the same as the number of (.+)\?", "as many"),
]


def answer(question, things):
    for pattern, rule in RULES:
        found = re.fullmatch(pattern, question)
        if found:
            a, b = [*[group for group in found.groups() if group], None][:2]
            return by_rule(rule, a, b, things)
    raise AssertionError(f"nobody understands '{question}'")


def by_rule(rule, a, b, things):
    if rule in ("exist", "count", "more", "fewer", "as many"):
        sets = [things_called(name, things) for name in (a, b) if name]
        assert all(thing["seen"] for one in sets for thing in one)
        first, second = [*map(len, sets), 0][:2]
        if rule == "count":
            return str(first)
        return yes({"exist": first > 0, "more": first > second, "fewer": first < second}.get(rule, first == second))
    if rule == "attribute":
        assert not set(b.split()) & {thing[a] for thing in EVERY[a]}, "the question tells the answer"
        return the(b, things)[a]
    if rule == "side of":
        a, b, rule = b, a, "side"
    x, y = the(a, things), the(b, things)
    if rule in ("bigger", "smaller", "same"):
        assert "small" not in f"{a} {b}" and "large" not in f"{a} {b}"
        more = BIG[x["size"]] - BIG[y["size"]]
        return yes({"bigger": more > 0, "smaller": more < 0, "same": more == 0}[rule])
    across = (x["box"][0] + x["box"][2] - y["box"][0] - y["box"][2]) / 2 / SIZE
    if rule in ("side", "left", "right"):
        assert abs(across) > 0.04, "too close to call"
        return ("left" if across < 0 else "right") if rule == "side" else yes((across < 0) == (rule == "left"))
    return yes((x["depth"] < y["depth"]) == (rule == "front"))


def test_every_answer_is_right(made):
    known, kinds = scenes(made), Counter()
    for task in ("vqa", "pope_random", "pope_popular", "pope_adversarial"):
        for _, row in samples(made, task):
            things = known[row["meta"]["image_id"]]["things"]
            said = row["messages"][-1]["content"][0]["text"]
            assert said == answer(row["meta"]["question"], things), (row["meta"]["question"], said, things)
            assert row["meta"]["answers"] == [said]
            kinds[row["meta"].get("question_type", task)] += 1
    wanted = {"exist", "count", "colour", "shape", "size", "texture", "relation", "compare_size", "compare_number"}
    assert wanted <= set(kinds) and min(kinds.values()) > 50


def test_dialogues_are_true_and_their_pronouns_mean_what_was_named_first(made):
    known, turns = scenes(made), 0
    for _, row in samples(made, "dialogue"):
        things = known[row["meta"]["image_id"]]["things"]
        said = [message["content"][-1]["text"] for message in row["messages"]]
        opening = re.fullmatch(r"What (?:\w+) (?:is|does) the (.+?)(?: have)?\?", said[0])
        topic = the(opening.group(1), things)
        name = " ".join(topic[key] for key in ("size", "texture", "colour", "shape"))
        if len(things_called(name, things)) > 1:
            name = opening.group(1)
        for asked, told, word in zip(said[::2], said[1::2], row["meta"]["words"], strict=True):
            turns += 1
            attribute = re.search(r"\b(colour|shape|size|texture)\b", asked) or re.search("(small) or large", asked)
            another = re.fullmatch(r"Is there another (.+)\?", asked)
            place = re.fullmatch(r"Is it (.+) the (.+)\?", asked)
            if another:
                assert word == yes(len(things_called(another.group(1), things)) > 1)
            elif asked.startswith("How many"):
                assert word == str(len(things)) and NUMBERS[len(things)] in told
            elif place and place.group(1) != "small or large":
                assert word == answer(f"Is the {name} {place.group(1)} the {place.group(2)}?", things)
                assert told.lower().startswith(word)
            else:
                assert word == topic["size" if attribute.group(1) == "small" else attribute.group(1)] and word in told
    assert turns > 300


def test_captions_name_what_is_there_and_keep_the_order_they_claim(made):
    known, orders = scenes(made), 0
    for _, row in samples(made, "caption"):
        things = known[row["meta"]["image_id"]]["things"]
        assert (
            len(row["meta"]["captions"]) >= 3 and row["messages"][-1]["content"][0]["text"] in row["meta"]["captions"]
        )
        for caption in row["meta"]["captions"]:
            text = caption.rstrip(".").lower().replace("a table with", "").replace("on a table", "")
            number = re.fullmatch(r"there (?:is|are) (\w+) things? on the table: (.+)", text)
            ordered = text.startswith("from left to right: ")
            text = number.group(2) if number else text.removeprefix("from left to right: ")
            if number:
                assert NUMBERS.index(number.group(1)) == len(things)
            between = re.search(r" (to the left of|to the right of|in front of|behind) ", text)
            if between:
                a, b = (re.sub("^an? ", "", part.strip()) for part in text.split(between.group(0)))
                xs, ys = things_called(a, things), things_called(b, things)
                assert xs and ys
                if len(xs) == len(ys) == 1:
                    assert answer(f"Is the {a} {between.group(1)} the {b}?", things) == "yes"
                continue
            phrases = [part.strip() for part in re.split(r", | and ", text)]
            counted = [re.fullmatch(r"(an?|two|three|four|five|six) (.+)", phrase).groups() for phrase in phrases]
            if all(name in SHAPES or name.rstrip("s") in SHAPES or name == "crosses" for _, name in counted):
                for count, name in counted:
                    wanted = 1 if count in ("a", "an") else NUMBERS.index(count)
                    assert len(things_called(name, things)) == wanted
                continue
            looks = [matching(name, things) for _, name in counted]
            assert all(looks) and len(phrases) == len(things)
            if ordered:
                orders += 1
                columns = [thing["column"] for thing in sorted(things, key=lambda t: t["column"])]
                assert columns == sorted(columns)
                for name, thing in zip(looks, sorted(things, key=lambda t: t["column"]), strict=True):
                    assert thing in name
    assert orders > 30


def matching(name, things):
    """Those of which a caption's phrase is the whole description: what is not said to be patterned is plain."""
    found = things_called(name, things)
    if not {"striped", "checked"} & set(name.split()):
        found = [thing for thing in found if thing["texture"] == "plain"]
    return found


def test_a_reference_fits_one_thing_and_its_box_is_that_of_its_pixels(made):
    known, forms = scenes(made), Counter()
    for _, row in samples(made, "refer"):
        meta = row["meta"]
        things = known[meta["image_id"]]["things"]
        target = referent(meta["phrase"].removeprefix("the "), things, forms)
        assert meta["box"] == target["box"] and target["seen"]
        assert meta["phrase"] in row["messages"][0]["content"][1]["text"]
        text = row["messages"][-1]["content"][0]["text"]
        edges = [int(number) for number in re.fullmatch(r"\[(\d+),(\d+),(\d+),(\d+)\]", text).groups()]
        assert all(abs(edge / 999 * SIZE - pixel) < 0.1 for edge, pixel in zip(edges, meta["box"], strict=True))
        x1, y1, x2, y2 = meta["box"]
        assert x1 < target["column"] * SIZE < x2 and y1 < target["row"] * SIZE < y2
    assert min(forms[form] for form in ("plain", "extreme", "neighbour")) > 5


def referent(phrase, things, forms):
    beside = re.fullmatch(r"(.+?) (to the left of|to the right of|in front of|behind) the (.+)", phrase)
    if beside:
        forms["neighbour"] += 1
        anchor = the(beside.group(3), things)
        found = []
        for thing in things_called(beside.group(1), things):
            left, front = thing["column"] < anchor["column"], thing["depth"] < anchor["depth"]
            where = {"to the left of": left, "to the right of": not left, "in front of": front, "behind": not front}
            if thing is not anchor and where[beside.group(2)]:
                found.append(thing)
        assert len(found) == 1, (phrase, found)
        return found[0]
    orders = {
        r"leftmost (.+)": lambda t: t["column"],
        r"rightmost (.+)": lambda t: -t["column"],
        r"(.+) closest to the camera": lambda t: t["depth"],
        r"(.+) farthest from the camera": lambda t: -t["depth"],
    }
    for pattern, order in orders.items():
        found = re.fullmatch(pattern, phrase)
        if found:
            forms["extreme"] += 1
            return min(things_called(found.group(1), things), key=order)
    forms["plain"] += 1
    return the(phrase, things)


def test_probes_are_half_yes_and_the_absent_are_those_that_each_setting_asks_for(made):
    """Frequencies and company counted again, pair by pair."""
    for split in SPLITS:
        rows = {row["number"]: row["things"] for row in lines(made / f"scenes/{split}.jsonl")}
        shown = {number: {(t["shape"], t["colour"]) for t in things} for number, things in rows.items()}
        often = Counter(pair for pairs in shown.values() for pair in pairs)
        company = Counter(two for pairs in shown.values() for two in permutations(sorted(pairs), 2))
        present = {}
        for setting in ("random", "popular", "adversarial"):
            by_image = defaultdict(lambda: {"yes": [], "no": []})
            for row in lines(made / f"chat/{split}/pope_{setting}.jsonl"):
                colour, shape = re.search(r"an? (\w+) (\w+) in the image", row["meta"]["question"]).groups()
                by_image[row["meta"]["image_id"]][row["meta"]["label"]].append((shape, colour))
            for number, asked in by_image.items():
                assert len(asked["yes"]) == len(asked["no"]) == min(3, len(shown[number]))
                assert set(asked["yes"]) <= shown[number] and not set(asked["no"]) & shown[number]
                assert present.setdefault(number, asked["yes"]) == asked["yes"]
                absent = set(often) - shown[number]
                pull = {
                    "random": dict.fromkeys(absent, 0),
                    "popular": {pair: often[pair] for pair in absent},
                    "adversarial": {pair: sum(company[one, pair] for one in shown[number]) for pair in absent},
                }[setting]
                best = sorted(pull.values(), reverse=True)[: len(asked["no"])]
                assert sorted((pull.get(pair, 0) for pair in asked["no"]), reverse=True) == best


def test_pairs_kept_unseen_are_not_even_spoken_of_elsewhere(made):
    about = json.loads((made / "scenes.json").read_text())
    unseen = {tuple(name.split()) for name in about["unseen_pairs"]}
    assert len(unseen) == 12
    for split in SPLITS:
        things = [t for row in lines(made / f"scenes/{split}.jsonl") for t in row["things"]]
        pairs = {(thing["colour"], thing["shape"]) for thing in things}
        assert pairs <= unseen if split == "unseen" else not pairs & unseen
        text = (made / f"chat/{split}/vqa.jsonl").read_text() + (made / f"chat/{split}/pope_random.jsonl").read_text()
        named = set(re.findall(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b", text))
        assert named <= unseen if split == "unseen" else not named & unseen


def test_every_line_is_a_sample_and_its_picture_is_there(made):
    ids = set()
    for file in sorted(made.glob("chat/*/*.jsonl")):
        for row in lines(file):
            sample = Sample.from_dict(row)
            assert sample.answered and all((made / path).is_file() for path in sample.images())
            ids.add(sample.id)
    about = json.loads((made / "scenes.json").read_text())
    tasks = [
        count for split in about["counts"].values() for name, count in split.items() if name not in ("images", "videos")
    ]
    assert len(ids) == sum(tasks) > 2000


def test_all_samples_about_a_picture_stand_together_and_none_twice(made):
    for split in SPLITS:
        files = {file.stem for file in made.glob(f"chat/{split}/*.jsonl")}
        tasks = sorted(files - {"all", "listed", "thought", "told", "again", "video"})
        apart = [row for task in tasks for row in lines(made / f"chat/{split}/{task}.jsonl")]
        together = lines(made / f"chat/{split}/all.jsonl")
        said = [json.dumps(row["messages"]) for row in together]
        assert set(said) == {json.dumps(row["messages"]) for row in apart} and len(set(said)) == len(said)
        pictures = [row["meta"]["image_id"] for row in together]
        assert pictures == sorted(pictures)


def test_questions_after_a_list_are_those_of_vqa_and_refer_and_the_list_is_that_of_detect(made):
    for split in SPLITS:
        lists = {row["meta"]["image_id"]: row["messages"] for row in lines(made / f"chat/{split}/detect.jsonl")}
        plain = {row["id"]: row for task in ("vqa", "refer") for row in lines(made / f"chat/{split}/{task}.jsonl")}
        rows = lines(made / f"chat/{split}/listed.jsonl")
        pictures = [row["meta"]["image_id"] for row in rows]
        assert rows and pictures == sorted(pictures)
        assert len(rows) == sum(row["meta"]["image_id"] in lists for row in plain.values())
        for row in rows:
            asked, listed, question, answer = row["messages"]
            assert [asked, {k: v for k, v in listed.items() if k != "weight"}] == lists[row["meta"]["image_id"]]
            assert listed["weight"] == 0 and "weight" not in answer
            own = plain[row["id"]]["messages"]
            assert (question["content"], answer) == (own[0]["content"][1:], own[1])
            Sample.from_dict(row)


def test_what_is_told_is_what_is_thought_through_without_the_picture(made):
    thought, told = (lines(made / f"chat/val/{name}.jsonl") for name in ("thought", "told"))
    assert thought and len(thought) == len(told)
    for one, other in zip(thought, told, strict=True):
        (asked, *rest), (bare, *same) = one["messages"], other["messages"]
        assert rest == same and bare["content"] == asked["content"][1:] and asked["content"][0]["type"] == "image"
        Sample.from_dict(other)


def test_what_is_said_again_is_the_list_in_another_order(made):
    lists, rows = (lines(made / f"chat/val/{name}.jsonl") for name in ("detect", "again"))
    lists = {row["id"]: row["messages"] for row in lists}
    orders = Counter()
    for row in rows:
        (bare, listed, question, answer), (asked, said) = row["messages"], lists[row["id"]]
        assert bare["content"] == asked["content"][1:] and listed == said | {"weight": 0}
        first, _, near = said["content"][0]["text"].partition(f". {FROM_NEAR}: ")
        things, again = (re.findall(r"[^\[,]+ \[.*?\]", text) for text in (first, answer["content"][0]["text"]))
        things, again = ([thing.strip() for thing in some] for some in (things, again))
        names = [thing.partition(" [")[0] for thing in again]
        order = question["content"][0]["text"].partition("again from ")[2]
        near = near[:-1].split(", ")
        assert sorted(again) == sorted(things) and len(things) > 1
        assert {"right to left.": again == things[::-1], "near to far.": names == near}.get(order, names == near[::-1])
        orders[order] += 1
        Sample.from_dict(row)
    assert len(orders) == 3 and len(set(orders.values())) == 1


def test_a_thought_is_true_and_ends_in_the_answer(made):
    """Whoever reads the thought alone can answer what is counted, compared in number or placed."""
    read = Counter()
    for row in lines(made / "chat/train/thought.jsonl"):
        *_, question, answer = row["messages"]
        asked, said = question["content"][0]["text"], answer["content"][0]["text"]
        if "question_type" not in row["meta"]:
            assert THINK not in asked and said.startswith("[")
            continue
        kind, right = row["meta"]["question_type"], row["meta"]["answers"][0]
        reasons, mark, last = said.rpartition(f" {ANSWER} ")
        assert asked == f"{row['meta']['question']} {THINK}" and mark and last == right
        steps = [step.partition(": ") for step in re.split(r"\. ?", reasons) if step]
        parts = [part for _, _, part in steps]
        assert len(parts) == {"relation": 3, "compare_size": 2, "compare_number": 2}.get(kind, 1)
        found = [[] if part == "none" else part.split(", ") for part in parts]
        if not ("number" in kind or kind == "count"):
            assert all(thing.endswith("]") for things in found[:2] for thing in things)
        listed, _, near = row["messages"][1]["content"][0]["text"].partition(f". {FROM_NEAR}: ")
        assert all(thing in listed for things in found for thing in things if not thing.isdigit())
        if kind == "relation":
            x, y = (part.partition(" [")[0] for part in parts[:2])
            assert {x, y} == set(found[2]) and _relation(row["meta"]["question"], x, found[2]) in (right, None)
            places = near[:-1].split(", ") if steps[2][0] == FROM_NEAR else re.split(r" \[.*?\](?:, )?", listed)
            assert places.index(found[2][0]) < places.index(found[2][1])
            assert near.count(", ") == listed.count("], ")
        elif "number" in kind or kind == "count":
            counts = [len(things) - 1 if things else 0 for things in found]
            assert all(int(things[-1]) == count for things, count in zip(found, counts, strict=True) if things)
            assert right == (str(counts[0]) if kind == "count" else _yes(row["meta"]["question"], *counts))
        elif kind == "exist":
            assert right == ("yes" if found[0] else "no")
        else:
            assert kind == "compare_size" or right in [*parts[0].split(), "plain"]  # that a thing is plain is not said
        read[kind] += 1
    assert {"relation", "count", "compare_number", "compare_size", "exist"} <= set(read)


def _relation(question, x, order):
    """What the order of the two says; None where another way of asking than these is used."""
    first = order[0] == x
    if "left or" in question:
        return "left" if first else "right"
    true = {"left": first, "right": not first, "in front": first, "closer": first, "behind": not first}
    true |= {"farther": not first}
    return next(("yes" if true[word] else "no" for word in true if word in question), None)


def _yes(question, x, y):
    return "yes" if (x > y if "more" in question else x < y if "fewer" in question else x == y) else "no"


def test_official_files_say_the_same_in_their_own_forms(made):
    for split in SPLITS:
        vqa = [row["meta"] for row in lines(made / f"chat/{split}/vqa.jsonl")]
        questions = json.loads((made / f"official/vqa/{split}_questions.json").read_text())["questions"]
        annotations = json.loads((made / f"official/vqa/{split}_annotations.json").read_text())["annotations"]
        assert [(q["question_id"], q["image_id"], q["question"]) for q in questions] == [
            (m["question_id"], m["image_id"], m["question"]) for m in vqa
        ]
        for one, meta in zip(annotations, vqa, strict=True):
            assert {a["answer"] for a in one["answers"]} == set(meta["answers"]) and len(one["answers"]) == 10
            assert one["answer_type"] in ("yes/no", "number", "other")
        coco = json.loads((made / f"official/captions/{split}.json").read_text())
        names = {image["id"]: image["file_name"] for image in coco["images"]}
        assert all((made / "images" / name).is_file() for name in names.values())
        assert {a["image_id"] for a in coco["annotations"]} <= set(names)
        probes = lines(made / f"official/pope/{split}_adversarial.jsonl")
        assert {tuple(sorted(row)) for row in probes} <= {("image", "label", "question_id", "text")}
        assert [row["label"] for row in probes] == [
            row["meta"]["label"] for row in lines(made / f"chat/{split}/pope_adversarial.jsonl")
        ]
        refs = json.loads((made / f"official/refs/{split}.json").read_text())
        boxes = {
            one["id"]: one
            for one in json.loads((made / f"official/refs/{split}_instances.json").read_text())["annotations"]
        }
        for ref, row in zip(refs, lines(made / f"chat/{split}/refer.jsonl"), strict=True):
            x, y, width, height = boxes[ref["ann_id"]]["bbox"]
            assert [x, y, x + width, y + height] == row["meta"]["box"] and ref["bbox"] == [x, y, width, height]
            assert row["meta"]["phrase"] in [sentence["raw"] for sentence in ref["sentences"]]
            assert len({sentence["sent"] for sentence in ref["sentences"]}) == len(ref["sentences"]) <= 3


def test_yes_and_no_are_equally_often_right_and_no_answer_prevails(made):
    about = json.loads((made / "scenes.json").read_text())
    for split, tasks in about["answers"].items():
        for task, kinds in tasks.items():
            for counts in kinds.values():
                assert counts.get("yes", 0) == counts.get("no", 0), (split, task, counts)
    colours = about["answers"]["train"]["vqa"]["colour"]
    assert max(colours.values()) < 2 * sum(colours.values()) / 8
    assert not any(a == b for a, b in combinations(about["unseen_pairs"], 2))
