from bigbird_ds.training.reports.live_line import live_text


def test_the_live_line_has_a_bar_the_time_left_the_loss_and_the_throughput() -> None:
    values = {"loss": 6.1234, "tokens_per_s": 12_345.0}
    assert live_text(30, 120, values, 125.0) == (
        "step 30/120 [######------------------] 25% | 2m05s left | loss 6.1234 | 12.3k tok/s"
    )
    assert live_text(0, 120, {}, 0.0) == "step 0/120 [------------------------] 0%"
