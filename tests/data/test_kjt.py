import numpy as np
import tiny
from small_data import write_folder

from flm_torchrec.data.dataset import Column
from flm_torchrec.data.kjt import ContextReader, features_kjt
from flm_torchrec.data.prepare import prepare

ROWS = np.array([3, 0, 2, 3])


def assert_equal(found, expected) -> None:
    assert found.keys() == expected.keys()
    assert found.values().tolist() == expected.values().tolist()
    assert found.lengths().tolist() == expected.lengths().tolist()
    assert found.stride() == expected.stride()


def test_columns_of_one_value_a_row_are_read_row_by_row():
    columns = {"a": tiny.single([1, 2, 3, 4], 5), "b": tiny.single([9, 8, 7, 6], 10)}
    reader = ContextReader(columns)
    assert reader.rows.tolist() == [[1, 9], [2, 8], [3, 7], [4, 6]]
    assert_equal(reader.kjt(ROWS), features_kjt(columns, ROWS))


def test_columns_that_lie_side_by_side_are_not_copied():
    both = np.arange(8, dtype=np.int32).reshape(4, 2)
    columns = {
        name: Column(values=both[:, place], offsets=None, num_embeddings=8)
        for place, name in enumerate("ab")
    }
    reader = ContextReader(columns)
    assert np.shares_memory(reader.rows, both)
    assert_equal(reader.kjt(ROWS), features_kjt(columns, ROWS))
    swapped = ContextReader({"b": columns["b"], "a": columns["a"]})
    assert not np.shares_memory(swapped.rows, both)
    assert swapped.rows.tolist() == both[:, ::-1].tolist()


def test_columns_of_several_values_are_read_one_after_the_other():
    several = Column(values=np.arange(5), offsets=np.array([0, 2, 2, 4, 5]), num_embeddings=5)
    columns = {"a": tiny.single([1, 2, 3, 4], 5), "several": several}
    assert_equal(ContextReader(columns).kjt(ROWS), features_kjt(columns, ROWS))


def test_without_columns_there_is_nothing():
    assert ContextReader({}).kjt(ROWS) is None


def test_a_prepared_context_lies_side_by_side(tmp_path):
    context = "  context: {rating: {kind: numeric, buckets: 2}, device: categorical, tags: "
    context += '{kind: multi, separator: "|"}}\n  repeats: false'
    folder = write_folder(tmp_path, {"schema.yaml": ("  repeats: false", context)})
    path = folder / "interactions.csv"
    first, *lines = path.read_text().splitlines()
    more = [
        f"{line},{('tv', 'pc')[n % 2]},{('a|b', 'b', '')[n % 3]}" for n, line in enumerate(lines)
    ]
    path.write_text("\n".join([f"{first},device,tags", *more]) + "\n")
    found = prepare(folder).interactions.context
    assert list(found) == ["rating", "device", "tags"]
    assert found["tags"].offsets is not None
    one, other = found["rating"].values, found["device"].values
    assert one.base is other.base
