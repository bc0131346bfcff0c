# SPDX-License-Identifier: Apache-2.0
"""The label space: SNIPS intents and slots under this model's names, and the JSON answer pieces made from them."""

SNIPS_INTENTS = {
    "GetWeather": "weather", "PlayMusic": "play_music", "BookRestaurant": "restaurant_reservation",
    "AddToPlaylist": "update_playlist", "RateBook": "rate_book", "SearchCreativeWork": "search_creative_work",
    "SearchScreeningEvent": "search_screening_event",
}
SNIPS_SLOTS = {"timeRange": "time"}
OOS = "oos"
CLOSE = '"}'


def intent_piece(name):
    return '{"intent":"' + name


def slot_piece(name):
    return '","' + name + '":"'


def answer(tok, intent, slots):
    """Token ids of the whole answer. slots: [(name, value)] in order of appearance."""
    out = [tok.piece_ids[intent_piece(intent)]]
    for name, value in slots:
        out.append(tok.piece_ids[slot_piece(name)])
        out += tok.encode(value)
    return out + [tok.piece_ids[CLOSE], 1]
