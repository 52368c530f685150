"""Files: uploaded, read in the background, found, deleted."""

import openai

LIMIT_S = 120
NOTES = (
    "notes.md",
    b"---\ntitle: x\n---\n# Moon\n\nThe moon is about 384,000 kilometres away from the earth.\n\n# Tea\n\nGreen tea is brewed at 80.",
)


def test_a_file_is_read_found_and_deleted(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="files")
    file = client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=NOTES, attributes={"kind": "notes"}, poll_interval_ms=200, max_wait_seconds=LIMIT_S
    )
    assert (file.status, file.last_error) == ("completed", None)
    found = client.vector_stores.search(
        store.id, query="How far away is the moon?", filters={"type": "eq", "key": "kind", "value": "notes"}
    )
    assert (found.data[0].file_id, found.data[0].filename) == (file.id, "notes.md")
    assert "384,000" in found.data[0].content[0].text
    assert client.files.content(file.id).read() == NOTES[1]
    client.files.delete(file.id)
    assert client.vector_stores.search(store.id, query="moon").data == []


def test_a_file_that_is_not_what_its_name_says(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    file = client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("a.pdf", b"no PDF"), poll_interval_ms=200, max_wait_seconds=LIMIT_S
    )
    assert file.status == "failed"
    assert file.last_error
    assert file.last_error.code == "invalid_file"
