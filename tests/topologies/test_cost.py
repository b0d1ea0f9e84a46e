"""What networks cost: the arithmetic, and how near the prices come to the figures that they are fitted to."""

import pytest
from pydantic import ValidationError

from topologies.cost import (
    ENDPOINT_LINK_USD,
    LINK_USD,
    SWITCH_USD,
    TABLE_3,
    Prices,
    cost_usd,
    deviations,
    fit_cables,
    fit_report,
)
from topologies.counts import NetworkCounts


def test_a_network_costs_its_parts():
    # 3 x 10 kUSD + 7 x 1 kUSD + 5 x 100 USD = 37.5 kUSD.
    prices = Prices.model_validate({"switch": "10 kUSD", "link": "1 kUSD", "endpoint_link": "100 USD"})
    assert cost_usd(NetworkCounts(endpoints=5, switches=3, links=7, endpoint_links=5), prices) == 37_500


def test_the_two_layer_tree_by_hand():
    # 96 x 30,000 + 2,048 x 2,150 + 2,048 x 850 = 2,880,000 + 4,403,200 + 1,740,800 = 9,024,000 USD: 9 M$, and
    # 4,406.25 USD an endpoint, where the paper prints 4.39 k$.
    assert cost_usd(TABLE_3["FT2"].counts, Prices()) == 9_024_000
    assert cost_usd(TABLE_3["FT2"].counts, Prices()) / 2_048 == 4_406.25


@pytest.mark.parametrize("name", TABLE_3)
def test_default_prices_meet_every_figure_of_table_3_within_two_percent(name):
    total, per_endpoint = deviations(Prices())[name]
    counts, cost_musd, per_endpoint_kusd = TABLE_3[name]
    assert total == pytest.approx(cost_usd(counts, Prices()) / (cost_musd * 1e6) - 1)
    assert per_endpoint == pytest.approx(
        cost_usd(counts, Prices()) / counts.endpoints / (per_endpoint_kusd * 1e3) - 1
    )
    assert max(abs(total), abs(per_endpoint)) <= 0.02


def test_default_prices_are_the_fit_rounded():
    assert Prices() == Prices(switch=f"{SWITCH_USD} USD", link=f"{LINK_USD} USD", endpoint_link="850 USD")
    fitted = fit_cables(SWITCH_USD)
    assert (50 * round(fitted[0] / 50), 50 * round(fitted[1] / 50)) == (LINK_USD, ENDPOINT_LINK_USD)


def test_the_fit_is_the_best_one():
    # Of all prices, no step in any direction leaves a smaller sum of squares than the fitted ones.
    def left(link: float, endpoint: float) -> float:
        prices = Prices(switch=f"{SWITCH_USD} USD", link=f"{link!r} USD", endpoint_link=f"{endpoint!r} USD")
        return sum(each**2 for row in deviations(prices).values() for each in row)

    link, endpoint = fit_cables(SWITCH_USD)
    best = left(link, endpoint)
    for step in (-20.0, 20.0):
        assert left(link + step, endpoint) > best
        assert left(link, endpoint + step) > best


@pytest.mark.parametrize("switch_usd", [0.0, 10e3, 50e3, 80e3])
def test_table_3_leaves_the_switch_price_open(switch_usd):
    # As the head of topologies.cost says: with cables fitted to it, any switch price up to 82 kUSD will do.
    link, endpoint = fit_cables(switch_usd)
    prices = Prices(switch=f"{switch_usd} USD", link=f"{link!r} USD", endpoint_link=f"{endpoint!r} USD")
    assert max(abs(each) for row in deviations(prices).values() for each in row) < 0.0155


def test_no_fitted_price_is_negative():
    # At 90 kUSD a switch the best pair would have an endpoint link of -97 USD; at 200 kUSD both would be negative.
    link, endpoint = fit_cables(90e3)
    assert link > 0
    assert endpoint == 0
    assert fit_cables(200e3) == (0, 0)


def test_prices_say_where_they_come_from():
    given = Prices.model_validate({"link": "2 kUSD"})
    assert given.sources["switch"].startswith("assumed: ")
    assert "arXiv 2505.09343v2" in given.sources["switch"]
    assert given.sources["link"] == "given: cluster.prices"


def test_prices_need_a_unit():
    with pytest.raises(ValidationError, match="has no unit"):
        Prices.model_validate({"switch": 30_000})


def test_the_command_prints_the_fit():
    report = fit_report()
    assert "fitted: link 2,133, endpoint link 849 USD" in report
    assert all(name in report for name in TABLE_3)
