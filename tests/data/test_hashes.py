"""Hashes of files are kept, and a file that changed is read again."""

import os
import time

from flm_torchrec.data.preparing.hashes import ContentHashes


def test_a_file_is_read_once_and_again_when_it_changed(tmp_path):
    file, kept = tmp_path / "data.csv", tmp_path / "hashes.json"
    file.write_text("one")
    hour = 3600 * 10**9
    now = time.time_ns()
    os.utime(file, ns=(now - hour, now - hour))
    hashes = ContentHashes(kept)
    first = hashes.of_path(file)
    hashes.save()
    file.write_text("two")
    os.utime(file, ns=(now - hour, now - hour))  # as if it had not been touched
    assert ContentHashes(kept).of_path(file) == first
    os.utime(file)
    assert ContentHashes(kept).of_path(file) != first


def test_a_file_that_was_just_written_is_not_trusted_to_be_the_same(tmp_path):
    file, kept = tmp_path / "data.csv", tmp_path / "hashes.json"
    file.write_text("one")
    status = file.stat()
    hashes = ContentHashes(kept)
    first = hashes.of_path(file)
    hashes.save()
    file.write_text("two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ContentHashes(kept).of_path(file) != first


def test_a_folder_may_be_mounted_elsewhere(tmp_path):
    made, file = tmp_path / "one", tmp_path / "one/data.csv"
    (made / "prepared").mkdir(parents=True)
    file.write_text("one")
    os.utime(file, ns=(0, 0))
    hashes = ContentHashes(made / "prepared/hashes.json")
    first = hashes.of_path(file)
    hashes.save()
    made = made.rename(tmp_path / "other")
    (made / "data.csv").write_text("two")
    os.utime(made / "data.csv", ns=(0, 0))  # as if it had not been touched
    assert ContentHashes(made / "prepared/hashes.json").of_path(made / "data.csv") == first
