"""New lists and their validation split: clean tags, one photograph per id, every tag shared out alike."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from data.own import Tagged, stratified_validation
from data.own.lists import new_list

ROWS = st.lists(st.lists(st.sampled_from("abcde"), max_size=3, unique=True), max_size=60).map(
    lambda many: [Tagged(image=f"{number}.jpg", tags=tuple(tags)) for number, tags in enumerate(many)]
)


def counts(rows: tuple[Tagged, ...], split: str) -> Counter[str]:
    return Counter(tag for row in rows if row.split == split for tag in row.tags or ("",))


@given(ROWS, st.sampled_from([0.05, 0.2, 0.5]))
def test_no_photograph_is_lost_and_training_keeps_at_least_half_of_every_tag(
    rows: list[Tagged], share: float
) -> None:
    split = stratified_validation(rows, share)
    assert [(row.image, row.tags) for row in split] == [(row.image, row.tags) for row in rows]
    assert {row.split for row in split} <= {"train", "val"}
    train, val = counts(split, "train"), counts(split, "val")
    assert all(train[tag] >= max(1, val[tag]) for tag in train | val)


def test_each_tag_gives_about_its_share() -> None:
    rows = [
        Tagged(image=f"{number}.jpg", tags=("ab", "a", "b", "c")[number % 4 :][:1]) for number in range(400)
    ]
    rows += [Tagged(image=f"rare{number}.jpg", tags=("rare", "a")) for number in range(4)]
    split = stratified_validation(rows, 0.2)
    val = counts(split, "val")
    assert val["rare"] == 1
    assert all(18 <= val[tag] <= 24 for tag in ("a", "b", "c", "ab"))


def test_the_choice_depends_on_names_alone() -> None:
    rows = [Tagged(image=f"{number}.jpg", tags=("a",)) for number in range(50)]
    chosen = {row.image for row in stratified_validation(rows, 0.2) if row.split == "val"}
    again = {row.image for row in stratified_validation(rows[::-1], 0.2) if row.split == "val"}
    more = {
        row.image
        for row in stratified_validation([*rows, Tagged(image="x", tags=("a",))], 0.2)
        if row.split == "val"
    }
    assert len(chosen) == 10
    assert chosen == again
    assert len(chosen & more) >= 9


def test_other_splits_stay() -> None:
    rows = [Tagged(image="a.jpg", tags=("a",), split="test"), Tagged(image="b.jpg", tags=("a",))]
    assert [row.split for row in stratified_validation(rows, 0.5)] == ["test", "train"]


def test_spellings_become_one() -> None:
    found = new_list(
        [
            Tagged(image="1.jpg", tags=("Cat", "big  dog")),
            Tagged(image="2.jpg", tags=("cat",)),
            Tagged(image="3.jpg", tags=("cat", "Background", "a;b")),
        ]
    )
    assert found.text == 'image,tags,split\n1.jpg,big dog;cat,train\n2.jpg,cat,train\n3.jpg,"a,b;cat",train\n'
    assert found.problems == ("spellings taken for one class: Cat, cat as cat",)


def test_one_photograph_per_id() -> None:
    found = new_list([Tagged(image=f"x/a.{end}", tags=("cat",)) for end in ("png", "jpg")])
    assert [row.image for row in found.rows] == ["x/a.jpg"]
    assert "x/a.png; left out" in found.problems[0]


def test_the_images_folder_is_used_where_all_are_in_it() -> None:
    inside = [Tagged(image="images/a.jpg", tags=("cat",)), Tagged(image="images/x/b.jpg", tags=("cat",))]
    found = new_list(inside)
    assert (found.images, found.text.splitlines()[1]) == ("images", "a.jpg,cat,train")
    assert new_list([*inside, Tagged(image="c.jpg", tags=("cat",))]).images == "."
