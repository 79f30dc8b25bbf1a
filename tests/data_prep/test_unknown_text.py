from bigbird_ds.data.format import UnknownText
from data_prep.unknown_text import warning_at_the_end


def test_a_warning_about_control_characters_does_not_send_them_to_the_terminal() -> None:
    frequent = {"\x1b": 70, "\u200b": 40, "é": 9}
    unknown = UnknownText(num_characters=119, num_documents=1, most_frequent=frequent)
    warning = warning_at_the_end(unknown, num_documents=5, num_chars=1000)
    assert warning is not None and warning.isprintable()
    assert "most often \\x1b \\u200b é;" in warning
