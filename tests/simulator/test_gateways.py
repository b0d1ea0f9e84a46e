from simulator.gateways import ways


def test_ways_cross_nvlink_as_rarely_as_they_can():
    # Nodes of 3: GPU 1 of node 0 to GPU 2 of node 2 (endpoint 8), whose node has the endpoints 6, 7 and 8.
    direct, own_index, once, same_index, any_pair = ways(1, 8, 3)
    assert direct == [(1, 8)]
    assert own_index == [(2, 8)]
    assert sorted(once) == [(0, 8), (1, 6), (1, 7), (1, 8), (1, 8), (2, 8)]
    assert same_index == [(0, 6), (1, 7), (2, 8)]
    assert sorted(any_pair) == [(leaving, arriving) for leaving in (0, 1, 2) for arriving in (6, 7, 8)]
