# SPDX-License-Identifier: Apache-2.0
"""The label space: SNIPS intents and slots under this model's names, and the JSON answer pieces made from them."""

SNIPS_INTENTS = {
    "GetWeather": "weather", "PlayMusic": "play_music", "BookRestaurant": "restaurant_reservation",
    "AddToPlaylist": "update_playlist", "RateBook": "rate_book", "SearchCreativeWork": "search_creative_work",
    "SearchScreeningEvent": "search_screening_event",
}
SNIPS_SLOTS = {"timeRange": "time"}
# HWU64 intents that mean the same as one of ours, and those that nothing here covers (out-of-scope examples).
HWU_SAME = {
    "alarm_set": "alarm", "audio_volume_up": "change_volume", "audio_volume_down": "change_volume",
    "audio_volume_mute": "change_volume", "cooking_recipe": "recipe", "general_commandstop": "cancel",
    "general_joke": "tell_joke", "general_repeat": "repeat", "iot_cleaning": "smart_home", "iot_coffee": "smart_home",
    "iot_hue_lightchange": "smart_home", "iot_hue_lightdim": "smart_home", "iot_hue_lightoff": "smart_home",
    "iot_hue_lighton": "smart_home", "iot_hue_lightup": "smart_home", "iot_wemo_off": "smart_home",
    "iot_wemo_on": "smart_home", "play_music": "play_music", "qa_currency": "exchange_rate", "qa_definition": "definition",
    "qa_maths": "calculator", "transport_taxi": "uber", "transport_traffic": "traffic", "weather_query": "weather",
}
HWU_OUT = {"qa_factoid", "qa_stock", "news_query", "email_query", "email_querycontact", "email_sendemail",
           "email_addcontact", "social_post", "social_query", "play_game", "play_podcasts", "recommendation_movies",
           "recommendation_events", "transport_ticket"}
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
