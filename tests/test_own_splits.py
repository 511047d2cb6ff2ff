"""New lists and their validation split: clean tags, one image per id, every tag shared out alike."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from data.own import Found, list_text, new_list, stratified_validation
from data.sources import Entry

ROWS = st.lists(st.lists(st.sampled_from("abcde"), max_size=3, unique=True), max_size=60).map(
    lambda many: [
        Entry(image=f"{number}.jpg", tags=tuple(tags), split="train") for number, tags in enumerate(many)
    ]
)


def counts(rows: tuple[Entry, ...], split: str) -> Counter[str]:
    return Counter(tag for row in rows if row.split == split for tag in row.tags or ("",))


@given(ROWS, st.sampled_from([0.05, 0.2, 0.5]))
def test_no_image_is_lost_and_training_keeps_at_least_half_of_every_tag(
    rows: list[Entry], share: float
) -> None:
    split = stratified_validation(rows, share)
    assert [(row.image, row.tags) for row in split] == [(row.image, row.tags) for row in rows]
    assert {row.split for row in split} <= {"train", "val"}
    train, val = counts(split, "train"), counts(split, "val")
    assert all(train[tag] >= max(1, val[tag]) for tag in train | val)


def test_each_tag_gives_about_its_share() -> None:
    rows = [
        Entry(image=f"{number}.jpg", tags=("ab", "a", "b", "c")[number % 4 :][:1], split="train")
        for number in range(400)
    ]
    rows += [Entry(image=f"rare{number}.jpg", tags=("rare", "a"), split="train") for number in range(4)]
    split = stratified_validation(rows, 0.2)
    val = counts(split, "val")
    assert val["rare"] == 1
    assert all(18 <= val[tag] <= 24 for tag in ("a", "b", "c", "ab"))


def test_the_choice_depends_on_names_alone() -> None:
    rows = [Entry(image=f"{number}.jpg", tags=("a",), split="train") for number in range(50)]
    chosen = {row.image for row in stratified_validation(rows, 0.2) if row.split == "val"}
    again = {row.image for row in stratified_validation(rows[::-1], 0.2) if row.split == "val"}
    more = {
        row.image
        for row in stratified_validation([*rows, Entry(image="x", tags=("a",), split="train")], 0.2)
        if row.split == "val"
    }
    assert len(chosen) == 10
    assert chosen == again
    assert len(chosen & more) >= 9


def test_other_splits_stay() -> None:
    rows = [Entry(image="a.jpg", tags=("a",), split="test"), Entry(image="b.jpg", tags=("a",), split="train")]
    assert [row.split for row in stratified_validation(rows, 0.5)] == ["test", "train"]


def found(*entries: tuple[str, tuple[str, ...]]) -> Found:
    listed = [Entry(image=image, tags=tags, split="train") for image, tags in entries]
    return new_list(Found(what="images", entries=tuple(listed)))


def test_spellings_become_one() -> None:
    new = found(("1.jpg", ("Cat", "big  dog")), ("2.jpg", ("cat",)), ("3.jpg", ("cat", "Background", "a;b")))
    assert (
        list_text(new)
        == 'image,tags,split\n1.jpg,big dog;cat,train\n2.jpg,cat,train\n3.jpg,"[""a;b"", ""cat""]",train\n'
    )
    assert new.problems[0] == "spellings taken for one class: 'big  dog' as big dog; 'Cat', 'cat' as cat"


def test_one_image_per_id() -> None:
    new = found(("x/a.png", ("cat",)), ("x/a.jpg", ("cat",)))
    assert [entry.image for entry in new.entries] == ["x/a.jpg"]
    assert "x/a.png; left out" in new.problems[0]


def test_the_images_folder_is_used_where_all_are_in_it() -> None:
    inside = ("images/a.jpg", ("cat",)), ("images/x/b.jpg", ("cat",))
    new = found(*inside)
    assert (new.data["images"], list_text(new).splitlines()[1]) == ("images", "a.jpg,cat,train")
    assert found(*inside, ("c.jpg", ("cat",))).data["images"] == "."
