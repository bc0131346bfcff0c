/* names.c - words for the numbers that records and events carry.
 *
 * Each list is a switch without a default, so that the compiler names the value that somebody appended to the
 * public header and forgot here.  Names are stable: they are written into ledgers and parsed by scripts.  Texts are for
 * people and may be reworded.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sluice/sluice.h"

const char *sluice_route_name(sluice_route route)
{
    switch (route) {
    case SLUICE_ROUTE_NONE:    return "none";
    case SLUICE_ROUTE_LOCAL:   return "local";
    case SLUICE_ROUTE_CLOUD:   return "cloud";
    case SLUICE_ROUTE_CASCADE: return "cascade";
    case SLUICE_ROUTE_ABSTAIN: return "abstain";
    case SLUICE_ROUTE_ASK:     return "ask";
    }
    return "unknown";
}

const char *sluice_outcome_name(sluice_outcome outcome)
{
    switch (outcome) {
    case SLUICE_OUTCOME_NONE:           return "none";
    case SLUICE_OUTCOME_ANSWERED:       return "answered";
    case SLUICE_OUTCOME_LOW_CONFIDENCE: return "low_confidence";
    case SLUICE_OUTCOME_NEEDS_CONSENT:  return "needs_consent";
    case SLUICE_OUTCOME_REFUSED:        return "refused";
    case SLUICE_OUTCOME_ABSTAINED:      return "abstained";
    case SLUICE_OUTCOME_TRUNCATED:      return "truncated";
    case SLUICE_OUTCOME_CANCELLED:      return "cancelled";
    case SLUICE_OUTCOME_FAILED:         return "failed";
    }
    return "unknown";
}

/* Name and sentence stand beside each other, so that nobody changes the meaning of one alone. */
typedef struct reason_words {
    const char *name, *text;
} reason_words;

static reason_words words_of(sluice_reason reason)
{
#define WORDS(value, name, text) case value: return (reason_words){ name, text }
    switch (reason) {
    WORDS(SLUICE_REASON_NONE, "none", "No reason was recorded.");

    WORDS(SLUICE_REASON_LOCAL_READY, "local_ready", "The model on the device can take the request.");
    WORDS(SLUICE_REASON_LOCAL_NO_MODEL, "local_no_model", "No model is loaded on the device.");
    WORDS(SLUICE_REASON_LOCAL_CONTEXT_TOO_LONG, "local_context_too_long", "The request is longer than the local model's context.");
    WORDS(SLUICE_REASON_LOCAL_NO_MEMORY, "local_no_memory", "The device has too little free memory for the local model.");
    WORDS(SLUICE_REASON_LOCAL_DEVICE_STATE, "local_device_state", "The device is too hot or its battery too low to run the local model.");
    WORDS(SLUICE_REASON_LOCAL_UNSUPPORTED, "local_unsupported", "The local model cannot do what the request needs.");
    WORDS(SLUICE_REASON_CLOUD_READY, "cloud_ready", "The endpoint can take the request.");
    WORDS(SLUICE_REASON_CLOUD_NO_ENDPOINT, "cloud_no_endpoint", "The policy names no such endpoint.");
    WORDS(SLUICE_REASON_CLOUD_OFFLINE, "cloud_offline", "The device has no network.");
    WORDS(SLUICE_REASON_CLOUD_BREAKER_OPEN, "cloud_breaker_open", "The endpoint failed repeatedly and is left alone for a while.");
    WORDS(SLUICE_REASON_CLOUD_TOO_LARGE, "cloud_too_large", "The request is larger than the policy lets out at once.");

    WORDS(SLUICE_REASON_LIKELY_GOOD, "likely_good", "The local answer is likely to be good enough.");
    WORDS(SLUICE_REASON_LIKELY_WEAK, "likely_weak", "The local answer is likely to be too weak.");
    WORDS(SLUICE_REASON_OUT_OF_DOMAIN, "out_of_domain", "The request is outside what the local model was made for.");
    WORDS(SLUICE_REASON_LOCAL_TOO_SLOW, "local_too_slow", "The local model would overrun the deadline.");
    WORDS(SLUICE_REASON_CLOUD_TOO_SLOW, "cloud_too_slow", "The endpoint would overrun the deadline.");
    WORDS(SLUICE_REASON_POLICY_PREFERS_LOCAL, "policy_prefers_local", "The policy prefers the device.");
    WORDS(SLUICE_REASON_POLICY_PREFERS_CLOUD, "policy_prefers_cloud", "The policy prefers the cloud.");

    WORDS(SLUICE_REASON_PERMITTED, "permitted", "A rule of the policy permits it and nothing forbids it.");
    WORDS(SLUICE_REASON_POLICY_NO_RULE, "policy_no_rule", "No rule of the policy permits it.");
    WORDS(SLUICE_REASON_POLICY_FORBIDS, "policy_forbids", "A rule of the policy forbids it.");
    WORDS(SLUICE_REASON_POLICY_LOCAL_ONLY, "policy_local_only", "The policy or the request allows the device only.");
    WORDS(SLUICE_REASON_CONSENT_MISSING, "consent_missing", "The user has not agreed to send this.");
    WORDS(SLUICE_REASON_CONSENT_EXPIRED, "consent_expired", "The user's consent has expired.");
    WORDS(SLUICE_REASON_CONSENT_REVOKED, "consent_revoked", "The user has withdrawn the consent.");
    WORDS(SLUICE_REASON_CONSENT_REFUSED, "consent_refused", "The user was asked and said no.");
    WORDS(SLUICE_REASON_CLOCK_UNTRUSTED, "clock_untrusted", "The device's clock cannot be trusted, so no expiry can be checked.");
    WORDS(SLUICE_REASON_LEDGER_UNAVAILABLE, "ledger_unavailable", "Nothing may leave because it could not be recorded first.");
    WORDS(SLUICE_REASON_PURPOSE_UNKNOWN, "purpose_unknown", "The policy does not know the purpose.");
    WORDS(SLUICE_REASON_CLASS_UNKNOWN, "class_unknown", "The request has a data class that is not known.");
    WORDS(SLUICE_REASON_POLICY_EXPIRED, "policy_expired", "The policy has expired; only the device may answer.");

    WORDS(SLUICE_REASON_CONFIDENT, "confident", "The local answer reached the confidence threshold.");
    WORDS(SLUICE_REASON_LOW_CONFIDENCE, "low_confidence", "The local answer did not reach the confidence threshold.");
    WORDS(SLUICE_REASON_STOPPED_EARLY, "stopped_early", "The local run was stopped because it could no longer reach the threshold.");
    WORDS(SLUICE_REASON_LOCAL_FAILED, "local_failed", "The local model failed.");
    WORDS(SLUICE_REASON_LOCAL_LATE, "local_late", "The local run was stopped to leave the cloud its time.");
    WORDS(SLUICE_REASON_CLOUD_ANSWERED, "cloud_answered", "The endpoint answered.");
    WORDS(SLUICE_REASON_CLOUD_FAILED, "cloud_failed", "The endpoint could not be reached or failed.");
    WORDS(SLUICE_REASON_CLOUD_PIN_MISMATCH, "cloud_pin_mismatch", "The endpoint showed a key that the policy does not pin.");
    WORDS(SLUICE_REASON_CLOUD_TLS, "cloud_tls", "The endpoint's certificate or handshake was refused.");
    WORDS(SLUICE_REASON_CLOUD_TRUNCATED, "cloud_truncated", "The endpoint's answer broke off.");
    WORDS(SLUICE_REASON_DEADLINE, "deadline", "The deadline passed.");
    WORDS(SLUICE_REASON_CANCELLED, "cancelled", "The app cancelled the request.");
    WORDS(SLUICE_REASON_CONSENT_GIVEN, "consent_given", "The user agreed when asked.");
    WORDS(SLUICE_REASON_FELL_BACK_TO_LOCAL, "fell_back_to_local", "The weak local answer is given because nothing better could be had.");
    WORDS(SLUICE_REASON_OUTPUT_LIMIT, "output_limit", "The answer reached its token limit.");
    }
#undef WORDS
    return (reason_words){ "unknown", "The reason is not known to this version." };
}

const char *sluice_reason_name(sluice_reason reason)
{
    return words_of(reason).name;
}

const char *sluice_reason_text(sluice_reason reason)
{
    return words_of(reason).text;
}
