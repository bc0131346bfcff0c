/* data_class.c - find classes of personal data in a text.
 *
 * One pass over the bytes; at each place where something can begin, the detectors that could begin there look ahead a
 * bounded distance, so time is linear in the length of the text and nothing is allocated.
 *
 * What carries check digits is believed when they are right (Luhn, ISO 7064, mod 11, mod 97, Verhoeff).  What carries none is
 * believed by its shape, or by its shape and a word in front of it.  The detectors lean towards finding too much: a false
 * finding makes a permit miss and the user be asked; a missed one lets data out under a consent that did not
 * speak of it.
 *
 * Letters and digits are ASCII here.  Bytes from 0x80 on count as separators, so that a number between Chinese or Greek
 * words is found; the spaces and hyphens of typography (U+00A0, U+2009, U+202F, U+2010 to U+2013) count as ' ' and '-'.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "policies/data_class.h"

#include <stdio.h>

/* ---- names --------------------------------------------------------------------------------------- */

static const char *const class_names[] = {
    "prompt", "email", "phone", "payment_card", "iban", "national_id", "network_address", "secret", "health", "finance"
};
enum { N_CLASSES = sizeof class_names / sizeof class_names[0] };
_Static_assert(SLUICE_CLASS_ALL == (1u << N_CLASSES) - 1, "each class has a name");

const char *sluice_data_class_name(sluice_data_classes one)
{
    for (size_t i = 0; i < N_CLASSES; i++)
        if (one == 1u << i)
            return class_names[i];
    return NULL;
}

sluice_data_classes sluice_data_class_parse(sluice_span name)
{
    for (size_t i = 0; i < N_CLASSES; i++)
        if (sluice_span_eq_str(name, class_names[i]))
            return 1u << i;
    return 0;
}

void sluice_data_class_list(sluice_data_classes set, char *out, size_t cap)
{
    size_t len = 0;

    if (cap == 0)
        return;
    out[0] = '\0';
    for (size_t i = 0; i < N_CLASSES; i++) {
        int n;

        if ((set & (1u << i)) == 0)
            continue;
        n = snprintf(out + len, cap - len, "%s%s", len > 0 ? ", " : "", class_names[i]);
        if (n < 0 || (size_t)n >= cap - len) { /* whole names only */
            out[len] = '\0';
            return;
        }
        len += (size_t)n;
    }
}

/* ---- bytes --------------------------------------------------------------------------------------- */

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }
static bool is_upper(uint8_t c) { return c >= 'A' && c <= 'Z'; }
static bool is_alpha(uint8_t c) { return is_upper(c) || (c >= 'a' && c <= 'z'); }
static bool is_alnum(uint8_t c) { return is_alpha(c) || is_digit(c); }
static uint8_t lower(uint8_t c) { return is_upper(c) ? (uint8_t)(c + ('a' - 'A')) : c; }
static int hex_value(uint8_t c)
{
    return is_digit(c) ? c - '0' : lower(c) >= 'a' && lower(c) <= 'f' ? lower(c) - 'a' + 10 : -1;
}

/* The byte at i, or 0 beyond either end (i may have wrapped below zero). */
static uint8_t at(sluice_span s, size_t i) { return i < s.len ? s.ptr[i] : 0; }

static bool starts_word(sluice_span s, size_t i) { return i == 0 || !is_alnum(s.ptr[i - 1]); }

/* Does `lit`, in lower case, stand at i, in any case? */
static bool has_at(sluice_span s, size_t i, const char *lit, size_t len)
{
    if (i > s.len || len > s.len - i)
        return false;
    for (size_t k = 0; k < len; k++)
        if (lower(s.ptr[i + k]) != (uint8_t)lit[k])
            return false;
    return true;
}

/* The separator at i as ' ' or '-' or itself; its length in bytes; 0 where there is none. */
static uint8_t separator(sluice_span s, size_t i, size_t *len)
{
    uint8_t c = at(s, i);

    *len = 1;
    if (c == ' ' || c == '-' || c == '.' || c == '/')
        return c;
    if (c == '\t')
        return ' ';
    if (c == 0xc2 && at(s, i + 1) == 0xa0) {
        *len = 2;
        return ' ';
    }
    if (c == 0xe2 && at(s, i + 1) == 0x80) {
        uint8_t d = at(s, i + 2);

        *len = 3;
        if (d == 0x89 || d == 0xaf)
            return ' ';
        if (d >= 0x90 && d <= 0x93)
            return '-';
    }
    *len = 0;
    return 0;
}

/* Is one of the '|'-separated lower-case words in the `reach` bytes before i, as a word of its own? */
static bool said_before(sluice_span s, size_t i, const char *words)
{
    enum { REACH = 40 };
    size_t from = i > REACH ? i - REACH : 0;

    for (const char *w = words; *w != '\0';) {
        size_t len = strcspn(w, "|");

        for (size_t k = from; k + len <= i; k++)
            if (starts_word(s, k) && has_at(s, k, w, len) && !is_alpha(at(s, k + len)))
                return true;
        w += len + (w[len] == '|');
    }
    return false;
}

/* ---- check digits -------------------------------------------------------------------------------- */

static bool luhn(const uint8_t *d, size_t n)
{
    unsigned sum = 0;

    for (size_t k = 0; k < n; k++) {
        unsigned v = d[n - 1 - k];

        if (k % 2 == 1)
            v = v > 4 ? 2 * v - 9 : 2 * v;
        sum += v;
    }
    return sum % 10 == 0;
}

static uint64_t number_of(const uint8_t *d, size_t n) /* n <= 18 */
{
    uint64_t v = 0;

    for (size_t k = 0; k < n; k++)
        v = v * 10 + d[k];
    return v;
}

static unsigned weighted(const uint8_t *d, size_t n, const uint8_t *weights)
{
    unsigned sum = 0;

    for (size_t k = 0; k < n; k++)
        sum += (unsigned)d[k] * weights[k];
    return sum;
}

/* Verhoeff, in the dihedral group of order ten: its multiplication is computed, its permutation tabled. */
static unsigned dihedral(unsigned a, unsigned b)
{
    unsigned turn = a < 5 ? (a + b) % 5 : (a + 10 - b) % 5; /* a reflection turns the other way */

    return ((a < 5) == (b < 5) ? 0u : 5u) + turn;
}

static bool verhoeff(const uint8_t *d, size_t n)
{
    static const uint8_t permute[10] = { 1, 5, 7, 6, 2, 8, 3, 0, 9, 4 };
    unsigned c = 0;

    for (size_t k = 0; k < n; k++) {
        unsigned v = d[n - 1 - k];

        for (size_t times = k % 8; times > 0; times--)
            v = permute[v];
        c = dihedral(c, v);
    }
    return c == 0;
}

static bool all_same(const uint8_t *d, size_t n)
{
    for (size_t k = 1; k < n; k++)
        if (d[k] != d[0])
            return false;
    return true;
}

static bool is_month_day(uint64_t month, uint64_t day) { return month >= 1 && month <= 12 && day >= 1 && day <= 31; }

/* ---- numbers in groups --------------------------------------------------------------------------- */

enum { GROUPS_MAX = 7, DIGITS_MAX = 24 };

/* A number as it is written: digits, and how they are grouped. */
typedef struct number {
    uint8_t digit[DIGITS_MAX];
    size_t n_digits, n_groups;
    uint8_t group[GROUPS_MAX];      /* digits in each */
    uint8_t separator[GROUPS_MAX];  /* in front of group k; of group 0: '+', '(' or 0 */
} number;

static bool grouped(const number *n, size_t count, const uint8_t *pattern)
{
    return n->n_groups == count && memcmp(n->group, pattern, count) == 0;
}
#define GROUPED(n, ...) grouped((n), sizeof((const uint8_t[]){ __VA_ARGS__ }), (const uint8_t[]){ __VA_ARGS__ })

static bool same_separators(const number *n)
{
    for (size_t k = 2; k < n->n_groups; k++)
        if (n->separator[k] != n->separator[1])
            return false;
    return true;
}

/* Issuer ranges as the networks publish them (ISO/IEC 7812-1): lengths in use with their first digits. */
static bool is_card(const number *n)
{
    const uint8_t *d = n->digit;
    size_t len = n->n_digits;
    unsigned two, four;

    if (len < 12 || len > 19 || !same_separators(n) || n->n_groups > 5)
        return false;
    if (n->n_groups > 1 && (n->separator[1] == '/' || n->group[0] < 3 || n->group[0] > 6))
        return false;
    two = d[0] * 10u + d[1];
    four = two * 100u + d[2] * 10u + d[3];
    switch (d[0]) {
    case 4:
        if (len != 13 && len != 16 && len != 19)
            return false;
        break;
    case 5:
        if (two >= 51 && two <= 55 ? len != 16 : len < 13 && four != 5018 && four != 5020 && four != 5038 && four != 5893)
            return false;
        break;
    case 2:
        if (!(len == 16 && four >= 2221 && four <= 2720) && !(len == 15 && four == 2131))
            return false;
        break;
    case 3:
        if ((two == 34 || two == 37) ? len != 15 : (two == 35) ? len < 16 : (two != 30 && two != 36 && two != 38 && two != 39) || len < 14)
            return false;
        break;
    case 6:
        if (len < 13 && four != 6304 && four != 6759 && four != 6761 && four != 6762 && four != 6763)
            return false;
        break;
    case 1:
        if (!(len == 15 && four == 1800))
            return false;
        break;
    default:
        return false;
    }
    return luhn(d, len) && !all_same(d, len);
}

static bool is_us_ssn(const number *n, sluice_span s, size_t i)
{
    uint64_t area = number_of(n->digit, 3);

    if (n->n_digits != 9 || area == 0 || area == 666 || area >= 900 || number_of(n->digit + 3, 2) == 0 || number_of(n->digit + 5, 4) == 0)
        return false;
    if (GROUPED(n, 3, 2, 4))
        return n->separator[1] == n->separator[2] && (n->separator[1] == '-' || n->separator[1] == ' ');
    return n->n_groups == 1 && said_before(s, i, "ssn|social security");
}

/* Numeric identity numbers that carry check digits.  Where one digit in ten would pass by chance, the usual grouping or
 * a word in front is asked for as well. */
static bool is_national_id(const number *n, sluice_span s, size_t i)
{
    static const uint8_t nhs_weights[9] = { 10, 9, 8, 7, 6, 5, 4, 3, 2 };
    static const uint8_t pesel_weights[10] = { 1, 3, 7, 9, 1, 3, 7, 9, 1, 3 };
    static const uint8_t cpf_weights[11] = { 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 0 };
    static const uint8_t ean_weights[13] = { 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1 };
    static const uint8_t bsn_weights[8] = { 9, 8, 7, 6, 5, 4, 3, 2 };
    const uint8_t *d = n->digit;

    if (all_same(d, n->n_digits))
        return false;
    switch (n->n_digits) {
    case 9:
        if (is_us_ssn(n, s, i))
            return true;
        /* Canada: Luhn */
        if (luhn(d, 9) && d[0] != 0 && d[0] != 8 &&
            (GROUPED(n, 3, 3, 3) ? same_separators(n) && n->separator[1] != '.' : said_before(s, i, "sin|social insurance|nas")))
            return true;
        /* Netherlands: the eleven test */
        return (weighted(d, 8, bsn_weights) + 10u * 11u - d[8]) % 11 == 0 && said_before(s, i, "bsn|burgerservicenummer|sofinummer");
    case 10:
        /* United Kingdom, NHS: mod 11 */
        if (11 - weighted(d, 9, nhs_weights) % 11 == (d[9] == 0 ? 11u : d[9]) && said_before(s, i, "nhs"))
            return true;
        /* Sweden: YYMMDD-NNNN, Luhn */
        return GROUPED(n, 6, 4) && n->separator[1] == '-' && is_month_day(number_of(d + 2, 2), number_of(d + 4, 2) % 60) && luhn(d, 10);
    case 11:
        /* Brazil: two digits mod 11 */
        if (GROUPED(n, 3, 3, 3, 2) || (n->n_groups == 1 && said_before(s, i, "cpf"))) {
            unsigned a = weighted(d, 9, cpf_weights + 1) * 10 % 11 % 10;
            unsigned b = weighted(d, 10, cpf_weights) * 10 % 11 % 10;

            if (a == d[9] && b == d[10])
                return true;
        }
        /* Belgium: 97 less the rest, with a 2 in front for those born from 2000 on */
        if (is_month_day(number_of(d + 2, 2), number_of(d + 4, 2))) {
            uint64_t body = number_of(d, 9), check = number_of(d + 9, 2);

            if (97 - body % 97 == check || 97 - (body + 2000000000u) % 97 == check)
                return true;
        }
        /* Poland: weights, and a month that carries the century */
        if (is_month_day(number_of(d + 2, 2) % 20, number_of(d + 4, 2)) && (10 - weighted(d, 10, pesel_weights) % 10) % 10 == d[10]
            && (n->n_groups == 1 || said_before(s, i, "pesel")))
            return true;
        /* Germany, tax id: ISO 7064 mod 11,10 */
        if (d[0] != 0 && (GROUPED(n, 2, 3, 3, 3) || said_before(s, i, "steuer|steuernummer|idnr|id-nr|steuer-id|identifikationsnummer|tin|tax"))) {
            unsigned product = 10;

            for (size_t k = 0; k < 10; k++) {
                unsigned sum = (d[k] + product) % 10;

                product = 2 * (sum == 0 ? 10 : sum) % 11;
            }
            return (11 - product) % 10 == d[10];
        }
        return false;
    case 12:
        /* India, Aadhaar: Verhoeff */
        return d[0] >= 2 && (GROUPED(n, 4, 4, 4) || said_before(s, i, "aadhaar|aadhar|uid")) && verhoeff(d, 12);
    case 13:
        /* Switzerland: 756, EAN-13 */
        return number_of(d, 3) == 756 && weighted(d, 13, ean_weights) % 10 == 0;
    case 15:
        /* France: sex, year, month, …, two digits mod 97 */
        return (d[0] == 1 || d[0] == 2) && number_of(d + 3, 2) >= 1 && number_of(d + 3, 2) <= 42
               && 97 - number_of(d, 13) % 97 == number_of(d + 13, 2);
    case 18: {
        /* China: ISO 7064 mod 11-2 (the form that ends in X is found with the letters) */
        unsigned rest = 0;

        for (size_t k = 0; k < 18; k++)
            rest = (rest * 2 + d[k]) % 11;
        return n->n_groups == 1 && is_month_day(number_of(d + 10, 2), number_of(d + 12, 2)) && rest == 1;
    }
    default:
        return false;
    }
}

static bool looks_like_date(const number *n)
{
    if (n->n_groups != 3 || n->n_digits > 8)
        return false;
    if (n->group[0] == 4)
        return is_month_day(number_of(n->digit + 4, n->group[1]), number_of(n->digit + 4 + n->group[1], n->group[2]));
    return n->group[2] == 4 && n->group[0] <= 2 && n->group[1] <= 2;
}

static bool is_phone(const number *n, sluice_span s, size_t i)
{
    static const char words[] = "phone|telephone|mobile|cell|call|tel|fax|ring|text|sms|whatsapp|handy|telefon|at";
    bool is_international = n->separator[0] == '+' || (n->digit[0] == 0 && n->digit[1] == 0);
    bool has_dash = false, has_point_only = n->n_groups > 1;

    if (n->n_digits < 7 || n->n_digits > 16)
        return false;
    for (size_t k = 1; k < n->n_groups; k++) {
        if (n->separator[k] == '/' && n->group[0] < 3)
            return false;
        has_dash = has_dash || n->separator[k] == '-' || n->separator[k] == ')';
        has_point_only = has_point_only && n->separator[k] == '.';
    }
    if (looks_like_date(n))
        return false;
    if (n->separator[0] == '+')
        return true;
    if (n->n_groups == 1)
        return (n->digit[0] == 0 && n->n_digits >= 9 && n->n_digits <= 13) || (n->n_digits <= 13 && said_before(s, i, words));
    if (is_international || n->separator[0] == '(')
        return true;
    if (GROUPED(n, 4, 4)) /* years, mostly, unless somebody says otherwise */
        return said_before(s, i, words);
    if (n->digit[0] == 0)
        return n->n_digits >= 8;
    if (has_dash)
        return n->n_digits >= 10 || (GROUPED(n, 3, 4)) || said_before(s, i, words);
    if (has_point_only) /* "1.234.567" is a price */
        return n->n_digits >= 10 && n->group[n->n_groups - 1] == 4;
    return (n->n_digits >= 10 && n->group[n->n_groups - 1] >= 4) || said_before(s, i, words);
}

static bool is_ipv4(const number *n, sluice_span s, size_t start)
{
    size_t k = 0;

    if (n->n_groups != 4 || n->n_digits > 12 || at(s, start - 1) == '.')
        return false;
    for (size_t g = 0; g < 4; g++) {
        if ((g > 0 && n->separator[g] != '.') || n->group[g] > 3 || number_of(n->digit + k, n->group[g]) > 255)
            return false;
        k += n->group[g];
    }
    return true;
}

/* Numbers that begin with the digit at i, which stands at the beginning of a group. */
static sluice_data_classes number_classes(sluice_span s, size_t i)
{
    sluice_data_classes found = 0;
    number n = { .n_groups = 0 };
    size_t k = i, before = i > 0 ? i - 1 : s.len, sep_len = 1, len;
    uint8_t lead = at(s, before);
    bool can_be_phone, is_phone_over = false;

    n.separator[0] = lead == '+' || lead == '(' ? lead : 0;
    if (lead == '(' && before > 0 && s.ptr[before - 1] == '+')
        n.separator[0] = '+';
    /* A phone number is judged whole, so it cannot begin amid a longer one. */
    for (size_t back = 1; back <= 3 && back <= i; back++)
        if (separator(s, i - back, &len) != 0 && len == back)
            sep_len = back;
    can_be_phone = n.separator[0] != 0 || i < sep_len + 1 || !is_digit(s.ptr[i - sep_len - 1]) || separator(s, i - sep_len, &len) == 0;

    while (n.n_groups < GROUPS_MAX) {
        size_t start = k;
        uint8_t sep;

        while (is_digit(at(s, k)) && n.n_digits < DIGITS_MAX)
            n.digit[n.n_digits++] = (uint8_t)(s.ptr[k++] - '0');
        if (k == start || is_digit(at(s, k)))
            break; /* too long to be anything */
        n.group[n.n_groups++] = (uint8_t)(k - start);

        if (!is_alnum(at(s, k)) || (lower(at(s, k)) == 'x' && is_digit(at(s, k + 1)))) { /* "x123" is an extension */
            bool is_ip_over = at(s, k) != '.' || !is_digit(at(s, k + 1));

            if (is_card(&n))
                found |= SLUICE_CLASS_PAYMENT_CARD;
            if (is_national_id(&n, s, i))
                found |= SLUICE_CLASS_NATIONAL_ID;
            if (is_ip_over && is_ipv4(&n, s, i))
                found |= SLUICE_CLASS_NETWORK_ADDRESS;
        }

        sep = separator(s, k, &len);
        if (at(s, k) == ')' && (n.separator[0] == '(' || n.separator[0] == '+')) { /* "(020) 7946", "(020)7946" */
            sep = ')';
            len = 1;
            if (separator(s, k + 1, &sep_len) != 0)
                len += sep_len;
        } else if (sep == ' ' && at(s, k + len) == '(' && is_digit(at(s, k + len + 1))) { /* "+44 (0) 20" */
            len++;
        }
        if (can_be_phone && !is_phone_over) {
            bool ends = sep == 0 || !is_digit(at(s, k + len)) || n.n_groups == GROUPS_MAX;
            /* "555-123-4567 4111 …": where dashes stop and a space comes, a whole number may have ended */
            bool turns = n.n_groups > 1 && n.separator[n.n_groups - 1] != ' ' && sep == ' ' && n.n_digits >= 9;

            if ((ends || turns) && (!is_alpha(at(s, k)) || lower(at(s, k)) == 'x')) {
                is_phone_over = true;
                /* a card or an identity number is not a phone number as well */
                if ((found & (SLUICE_CLASS_PAYMENT_CARD | SLUICE_CLASS_NATIONAL_ID | SLUICE_CLASS_NETWORK_ADDRESS)) == 0 && is_phone(&n, s, i))
                    found |= SLUICE_CLASS_PHONE;
            }
        }
        if (sep == 0 || n.n_groups == GROUPS_MAX || !is_digit(at(s, k + len)))
            break;
        n.separator[n.n_groups] = sep;
        k += len;
    }
    return found;
}

/* ---- identity numbers with letters --------------------------------------------------------------- */

/* Read a code without its separators: up to cap letters and digits from i, upper case.  A code ends where a byte is
 * neither alphanumeric nor one separator between two of them. */
static size_t read_code(sluice_span s, size_t i, uint8_t *out, size_t cap, bool *is_whole)
{
    size_t n = 0, len;

    while (n < cap) {
        uint8_t c = at(s, i);

        if (is_alnum(c)) {
            out[n++] = is_alpha(c) ? (uint8_t)(lower(c) - ('a' - 'A')) : c;
            i++;
        } else if (n > 0 && separator(s, i, &len) != 0 && c != '/' && is_alnum(at(s, i + len)) && is_alnum(s.ptr[i - 1])) {
            i += len;
        } else {
            break;
        }
    }
    *is_whole = !is_alnum(at(s, i));
    return n;
}

static bool shaped(const uint8_t *c, const char *shape) /* 'A' a letter, '9' a digit */
{
    for (; *shape != '\0'; shape++, c++)
        if (*shape == 'A' ? !is_upper(*c) : !is_digit(*c))
            return false;
    return true;
}

/* Italy: sixteen characters, the last a check letter; odd places by table (decree of 23 December 1976), even ones by value. */
static bool is_codice_fiscale(const uint8_t *c)
{
    static const uint8_t odd[36] = { 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, /* digits */
                                     1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23 };
    unsigned sum = 0;

    if (!shaped(c, "AAAAAA99A99A999A"))
        return false;
    for (size_t k = 0; k < 15; k++) {
        unsigned v = (unsigned)(is_digit(c[k]) ? c[k] - '0' : c[k] - 'A' + 10);

        sum += k % 2 == 0 ? odd[v] : v < 10 ? v : v - 10;
    }
    return sum % 26 == (unsigned)(c[15] - 'A');
}

static bool is_spanish_id(const uint8_t *c)
{
    uint32_t v = 0;

    if (!(shaped(c, "99999999A")) && !(shaped(c, "A9999999A") && c[0] >= 'X' && c[0] <= 'Z'))
        return false;
    for (size_t k = 0; k < 8; k++)
        v = v * 10 + (is_digit(c[k]) ? (uint32_t)(c[k] - '0') : (uint32_t)(c[k] - 'X'));
    return c[8] == (uint8_t)"TRWAGMYFPDXBNJZSQVHLCKE"[v % 23];
}

static bool is_nino(const uint8_t *c) /* United Kingdom: prefix letters that are given out, no check digit */
{
    return shaped(c, "AA999999A") && c[8] <= 'D' && strchr("DFIQUV", c[0]) == NULL && strchr("DFIOQUV", c[1]) == NULL
           && memcmp(c, "BG", 2) != 0 && memcmp(c, "GB", 2) != 0 && memcmp(c, "KN", 2) != 0 && memcmp(c, "NK", 2) != 0
           && memcmp(c, "NT", 2) != 0 && memcmp(c, "TN", 2) != 0 && memcmp(c, "ZZ", 2) != 0;
}

static bool is_chinese_id_x(const uint8_t *c)
{
    unsigned rest = 0;

    if (!shaped(c, "99999999999999999A") || c[17] != 'X' || !is_month_day((c[10] - '0') * 10u + (c[11] - '0'), (c[12] - '0') * 10u + (c[13] - '0')))
        return false;
    for (size_t k = 0; k < 17; k++)
        rest = (rest * 2 + (unsigned)(c[k] - '0')) % 11;
    return (rest * 2 + 10) % 11 == 1;
}

/* ---- IBAN ---------------------------------------------------------------------------------------- */

/* Lengths by country, from the registry that ISO 13616 names. */
static size_t iban_len(const uint8_t *country)
{
    static const char *const by_len[] = {
        [15] = "NO", [16] = "BE", [18] = "DK FI FO GL NL SD", [19] = "MK SI", [20] = "AT BA EE KZ LT LU XK MN",
        [21] = "CH CR HR LI LV", [22] = "BG BH DE GB GE IE ME RS VA", [23] = "AE IL IQ OM TL SO", [24] = "AD CZ ES MD PK RO SA SE SK TN VG",
        [25] = "LY PT ST", [26] = "IS TR", [27] = "BI DJ FR GR IT MC MR SM", [28] = "AL AZ BY CY DO GT HN HU LB NI PL SV", [29] = "BR EG PS QA UA",
        [30] = "JO KW MU YE", [31] = "MT SC", [32] = "LC", [33] = "RU"
    };

    for (size_t len = 15; len < sizeof by_len / sizeof by_len[0]; len++)
        for (const char *c = by_len[len]; c != NULL && *c != '\0'; c += c[2] == ' ' ? 3 : 2)
            if ((uint8_t)c[0] == country[0] && (uint8_t)c[1] == country[1])
                return len;
    return 0;
}

static bool is_iban(sluice_span s, size_t i)
{
    uint8_t c[34];
    uint8_t country[2] = { at(s, i), at(s, i + 1) };
    bool is_whole;
    size_t len, n;
    unsigned rest = 0;

    if (!is_alpha(country[0]) || !is_alpha(country[1]))
        return false;
    country[0] = (uint8_t)(lower(country[0]) - ('a' - 'A'));
    country[1] = (uint8_t)(lower(country[1]) - ('a' - 'A'));
    len = iban_len(country);
    if (len == 0)
        return false;
    n = read_code(s, i, c, len, &is_whole);
    if (n < len || !is_whole || !shaped(c + 2, "99"))
        return false;
    for (size_t k = 0; k < len; k++) { /* the first four characters count last; a letter is two digits */
        uint8_t v = c[(k + 4) % len];

        rest = is_digit(v) ? (rest * 10 + (unsigned)(v - '0')) % 97 : (rest * 100 + (unsigned)(v - 'A') + 10) % 97;
    }
    return rest == 1;
}

static sluice_data_classes code_classes(sluice_span s, size_t i)
{
    sluice_data_classes found = 0;
    uint8_t c[18];
    bool is_whole;

    if (is_alpha(s.ptr[i])) {
        if (is_iban(s, i))
            found |= SLUICE_CLASS_IBAN;
        if (read_code(s, i, c, 16, &is_whole) == 16 && is_whole && is_codice_fiscale(c))
            found |= SLUICE_CLASS_NATIONAL_ID;
    } else if (read_code(s, i, c, 18, &is_whole) == 18 && is_whole && is_chinese_id_x(c)) {
        found |= SLUICE_CLASS_NATIONAL_ID;
    }
    if (read_code(s, i, c, 9, &is_whole) == 9 && is_whole && (is_spanish_id(c) || is_nino(c)))
        found |= SLUICE_CLASS_NATIONAL_ID;
    return found;
}

/* ---- network addresses --------------------------------------------------------------------------- */

/* Hexadecimal groups from i: an IPv6 address (RFC 4291, 2.2) or a MAC address. */
static bool is_hex_address(sluice_span s, size_t i)
{
    size_t n_groups = 0, n_digits_in = 0, k = i;
    bool has_gap = false, has_decimal = false, are_pairs = true;

    if (at(s, i) == ':' && at(s, i + 1) != ':')
        return false;
    /* MAC: six pairs joined by the same ':' or '-' */
    for (size_t p = 0; p < 6 && are_pairs; p++, k += 3)
        are_pairs = hex_value(at(s, k)) >= 0 && hex_value(at(s, k + 1)) >= 0
                    && (p == 5 ? !is_alnum(at(s, k + 2)) && at(s, k + 2) != at(s, i + 2)
                               : (at(s, k + 2) == ':' || at(s, k + 2) == '-') && at(s, k + 2) == at(s, i + 2));
    if (are_pairs)
        return true;

    for (k = i; n_groups <= 8;) {
        size_t start = k;

        if (at(s, k) == ':' && at(s, k + 1) == ':') {
            if (has_gap)
                return false;
            has_gap = true;
            k += 2;
        } else if (n_groups > 0 && at(s, k) == ':') {
            k++;
        } else if (n_groups > 0) {
            break;
        }
        start = k;
        while (hex_value(at(s, k)) >= 0 && k - start < 5) {
            has_decimal = has_decimal || is_digit(s.ptr[k]);
            k++;
        }
        n_digits_in = k - start;
        if (n_digits_in == 0) { /* a gap may end the address; a lone colon is punctuation after it */
            if (start > i && at(s, start - 1) == ':' && !(start >= 2 && at(s, start - 2) == ':'))
                k--;
            break;
        }
        if (n_digits_in > 4)
            return false;
        n_groups++;
    }
    if (is_alnum(at(s, k)))
        return false;
    if (has_gap) /* "a::b" is C++: without a decimal digit, or with one group alone but "::1", it is not an address */
        return has_decimal && n_groups <= 7 && (n_groups >= 2 || at(s, i) == ':' || n_digits_in == 0) && k - i >= 3;
    return n_groups == 8;
}

/* ---- e-mail -------------------------------------------------------------------------------------- */

static bool is_local_part(uint8_t c) { return is_alnum(c) || c >= 0x80 || (c != 0 && strchr("._%+-'!#$&*/=?^`{|}~", c) != NULL); }

/* The '@' is at i.  RFC 5321, 4.5.3.1: the local part has at most 64 octets, the domain 255. */
static bool is_email(sluice_span s, size_t i)
{
    size_t k = i + 1, label = k, n_dots = 0;

    if (i == 0 || !is_local_part(s.ptr[i - 1]) || s.ptr[i - 1] == '.')
        return false;
    while (k - i <= 255 && (is_alnum(at(s, k)) || at(s, k) >= 0x80 || at(s, k) == '-' || at(s, k) == '.')) {
        if (s.ptr[k] == '.') {
            if (k == label || !(is_alnum(at(s, k + 1)) || at(s, k + 1) >= 0x80))
                break;
            n_dots++;
            label = k + 1;
        }
        k++;
    }
    return n_dots > 0 && k - label >= 2 && !is_digit(s.ptr[label]);
}

/* ---- secrets ------------------------------------------------------------------------------------- */

/* Length of the token from i, at most `cap`; how many digits and upper-case letters it has. */
static size_t token_len(sluice_span s, size_t i, size_t cap, const char *also, size_t *n_digits, size_t *n_upper)
{
    size_t n = 0;

    *n_digits = *n_upper = 0;
    while (n < cap && (is_alnum(at(s, i + n)) || (at(s, i + n) != 0 && strchr(also, at(s, i + n)) != NULL))) {
        *n_digits += is_digit(s.ptr[i + n]);
        *n_upper += is_upper(s.ptr[i + n]);
        n++;
    }
    return n;
}

/* Keys that say by their first letters whose they are. */
static const struct key_form {
    const char *prefix;
    uint8_t min_after;   /* characters that must follow */
    bool needs_digit;    /* else "sk-learn-is-a-library" would be one */
    bool is_upper_only;
} key_forms[] = {
    { "sk-", 16, true, false },  { "sk_live_", 10, false, false }, { "sk_test_", 10, false, false }, { "rk_live_", 10, false, false },
    { "AKIA", 16, false, true }, { "ASIA", 16, false, true },      { "ghp_", 20, false, false },     { "gho_", 20, false, false },
    { "ghu_", 20, false, false }, { "ghs_", 20, false, false },    { "ghr_", 20, false, false },     { "github_pat_", 20, false, false },
    { "glpat-", 16, false, false }, { "xoxb-", 10, false, false }, { "xoxp-", 10, false, false },    { "xoxa-", 10, false, false },
    { "xoxs-", 10, false, false }, { "xapp-", 10, false, false },  { "AIza", 30, false, false },     { "ya29.", 20, false, false },
    { "hf_", 20, false, false }, { "npm_", 30, false, false },     { "gsk_", 20, false, false },     { "pypi-", 20, false, false },
    { "SG.", 20, false, false }, { "dop_v1_", 20, false, false },  { "AGE-SECRET-KEY-", 20, false, true }
};

static bool is_key_at(sluice_span s, size_t i)
{
    size_t n, n_digits, n_upper;

    if (!is_alpha(s.ptr[i]) || (i > 0 && (is_alnum(s.ptr[i - 1]) || s.ptr[i - 1] == '_')))
        return false;
    for (size_t k = 0; k < sizeof key_forms / sizeof key_forms[0]; k++) {
        const struct key_form *f = &key_forms[k];
        size_t len = strlen(f->prefix);

        if (s.len - i <= len || memcmp(s.ptr + i, f->prefix, len) != 0)
            continue;
        n = token_len(s, i + len, 64, f->is_upper_only ? "" : "-_.", &n_digits, &n_upper);
        if (n >= f->min_after && (!f->needs_digit || n_digits > 0) && (!f->is_upper_only || n_digits + n_upper == n))
            return true;
    }
    /* JSON Web Token: three base64url parts, the first the start of {" */
    if (has_at(s, i, "eyj", 3) && memcmp(s.ptr + i, "eyJ", 3) == 0) {
        n = token_len(s, i, 256, "-_", &n_digits, &n_upper);
        if (n >= 12 && at(s, i + n) == '.' && is_alnum(at(s, i + n + 1)))
            return true;
    }
    return false;
}

bool sluice_data_class_has_key(sluice_span text)
{
    for (size_t i = 0; i < text.len; i++)
        if (is_key_at(text, i))
            return true;
    return false;
}

/* After "password is", what is said about passwords in general; anything else is taken for one. */
static bool is_common_word(sluice_span s, size_t i, size_t len)
{
    static const char words[] =
        "|a|also|always|an|and|asked|at|being|blank|case|changed|compromised|correct|empty|enough|expired|for|forgotten|gone|good|"
        "happening|hidden|in|incorrect|invalid|it|just|leaked|locked|long|lost|missing|my|needed|never|no|not|ok|on|only|optional|"
        "or|please|protected|rejected|required|reset|safe|same|saved|secure|set|short|shown|simple|still|stored|strong|stolen|that|"
        "the|there|this|to|too|unknown|used|valid|very|weak|what|when|working|wrong|your|";
    char word[16];

    if (len == 0 || len + 3 > sizeof word)
        return false;
    word[0] = '|';
    for (size_t k = 0; k < len; k++)
        word[1 + k] = (char)lower(s.ptr[i + k]);
    word[1 + len] = '|';
    word[2 + len] = '\0';
    return strstr(words, word) != NULL;
}

/* "password is hunter2", "api_key=…", "PIN: 4711", "Bearer …" */
static bool is_told_secret(sluice_span s, size_t i)
{
    static const struct told { const char *word; uint8_t min; bool needs_digit; } told[] = {
        { "password", 4, false }, { "passwort", 4, false }, { "passwd", 4, false }, { "pwd", 4, false }, { "passcode", 4, false },
        { "passphrase", 4, false }, { "contraseña", 4, false }, { "mot de passe", 4, false }, { "parola d'ordine", 4, false },
        { "api key", 8, true }, { "api_key", 8, true }, { "api-key", 8, true }, { "apikey", 8, true }, { "access token", 8, true },
        { "access_token", 8, true }, { "secret key", 8, true }, { "secret_key", 8, true }, { "client_secret", 8, true }, { "secret", 8, true },
        { "token", 12, true }, { "otp", 4, true }, { "pin", 4, true }, { "cvv", 3, true }, { "cvc", 3, true }
    };
    size_t n_digits, n_upper, n;

    if (has_at(s, i, "bearer", 6) && at(s, i + 6) == ' ') {
        n = token_len(s, i + 7, 64, "-_.~+/=", &n_digits, &n_upper);
        return n >= 16 && n_digits > 0;
    }
    if (has_at(s, i, "basic", 5) && at(s, i + 5) == ' ' && said_before(s, i, "authorization")) {
        n = token_len(s, i + 6, 64, "+/=", &n_digits, &n_upper);
        return n >= 8;
    }
    for (size_t w = 0; w < sizeof told / sizeof told[0]; w++) {
        size_t k, len = strlen(told[w].word);
        bool is_said;

        if (!has_at(s, i, told[w].word, len) || is_alnum(at(s, i + len)))
            continue;
        k = i + len;
        if (at(s, k) == '"' || at(s, k) == '\'') /* a JSON key */
            k++;
        while (at(s, k) == ' ' && k - i < 40)
            k++;
        is_said = at(s, k) == ':' || at(s, k) == '=';
        if (is_said) {
            k++;
        } else {
            static const char *const verbs[] = { "is ", "was ", "are ", "ist ", "lautet ", "es ", "est " };
            size_t v = 0;

            while (v < sizeof verbs / sizeof verbs[0] && !has_at(s, k, verbs[v], strlen(verbs[v])))
                v++;
            if (v == sizeof verbs / sizeof verbs[0])
                return false;
            k += strlen(verbs[v]);
        }
        while ((at(s, k) == ' ' || at(s, k) == '"' || at(s, k) == '\'' || at(s, k) == ':') && k - i < 60)
            k++;
        n = 0;
        n_digits = 0;
        while (n < 64 && at(s, k + n) > ' ' && at(s, k + n) != '"' && at(s, k + n) != ',') {
            n_digits += is_digit(s.ptr[k + n]);
            n++;
        }
        while (n > 0 && (s.ptr[k + n - 1] == '.' || s.ptr[k + n - 1] == '?' || s.ptr[k + n - 1] == ';'))
            n--;
        return n >= told[w].min && (!told[w].needs_digit || n_digits > 0) && !is_common_word(s, k, n);
    }
    return false;
}

/* "://user:word@host": the colon is at i. */
static bool is_url_with_credentials(sluice_span s, size_t i)
{
    size_t k = i + 3, colon = 0;

    if (at(s, i + 1) != '/' || at(s, i + 2) != '/' || i == 0 || !is_alnum(s.ptr[i - 1]))
        return false;
    for (; k - i < 256 && at(s, k) > ' ' && at(s, k) != '/' && at(s, k) != '?' && at(s, k) != '#'; k++) {
        if (s.ptr[k] == ':' && colon == 0)
            colon = k;
        if (s.ptr[k] == '@')
            return colon > 0 && k > colon + 1;
    }
    return false;
}

/* ---- vocabulary ---------------------------------------------------------------------------------- */

/* Words by first letter, '|' between them; a final '*' takes any ending. */
static const char *const health_words[26] = {
    "abortion*|allerg*|alzheimer*|anemia|anorexi*|antibiotic*|antidepressant*|anxiety disorder|arthritis|asthma*|autis*|adhd",
    "biopsy|bipolar|blood pressure|blood sugar|blood test|bulimi*|breast cancer",
    "cancer*|chemo*|cholesterol|chronic pain|cirrhosis|concussion|contracepti*|covid*|colonoscopy|crohn*",
    "dementia|depress*|diabet*|diagnos*|dialysis|disabilit*|depression|depressiv*",
    "eating disorder|eczema|endometriosis|epilep*|erectile*",
    "fibromyalgia|fertility", "gonorrh*|glaucoma|gynecolog*|gynaecolog*|gastritis",
    "heart attack|heart disease|hepatitis|herpes|hiv|hypertension|hospitali*|hysterectomy|hemorrhoid*",
    "insulin|infertil*|ivf|insomnia", "", "krankheit*|krebs|kidney disease|krank", "leukemia|leukaemia|lupus|lymphoma",
    "medical|medication*|melanoma|menopaus*|mental health|metastas*|migraine*|miscarr*|multiple sclerosis|mastectomy|maladie*|medikament*",
    "neurolog*", "oncolog*|overdos*|osteoporosis|opioid*",
    "parkinson*|pneumonia|pregnan*|prescription*|prescribed|psychiatr*|psychosis|psychotherap*|ptsd|paxil|prozac|patient id", "",
    "rehab|rheumat*", "schizophren*|seizure*|stroke|suicid*|surgery|symptom*|syphilis|schwanger*|self-harm|sertraline",
    "therapist|tuberculosis|tumor*|tumour*|thyroid*|transplant*|testosterone", "ulcer*|ultrasound", "vasectomy|venereal", "", "xanax|x-ray", "", "" };

static const char *const finance_words[26] = { "account balance|account number|alimony|annual income",
                                               "bankrupt*|bank account|bank statement|brokerage",
                                               "credit score|credit report|creditor*|collections agency|credit limit",
                                               "debt*|debit card|direct debit|dividend*",
                                               "earn a year|equity stake",
                                               "foreclos*|fico",
                                               "garnish*|gehalt*",
                                               "household income",
                                               "income tax|insolven*|inheritance|ich verdiene|i earn|income is",
                                               "",
                                               "kontostand|kontonummer|kreditwürdig*",
                                               "loan*|life savings",
                                               "mortgage*|my income|my savings|my salary|monthly income",
                                               "net worth|nómina",
                                               "overdraft|overdrawn",
                                               "payslip*|pay stub*|paycheck*|pension*|payday*",
                                               "",
                                               "repossess*|retirement fund|routing number|refinanc*",
                                               "salar*|sort code|student loan*|stock portfolio|schulden|savings account|salaire",
                                               "tax return*|tax refund|tax id|taxable",
                                               "unemployment benefit*",
                                               "",
                                               "wage*|welfare benefit*|wire transfer",
                                               "",
                                               "",
                                               "" };

static bool has_word(const char *words, sluice_span s, size_t i)
{
    while (*words != '\0') {
        size_t len = strcspn(words, "|");
        bool is_open = len > 0 && words[len - 1] == '*';
        size_t bare = len - is_open;

        if (bare > 0 && has_at(s, i, words, bare)) {
            uint8_t after = at(s, i + bare);

            if (is_open || !is_alnum(after) || (lower(after) == 's' && !is_alnum(at(s, i + bare + 1))))
                return true;
        }
        words += len + (words[len] == '|');
    }
    return false;
}

/* ---- the pass ------------------------------------------------------------------------------------ */

sluice_data_classes sluice_data_class_find(sluice_span s)
{
    sluice_data_classes found = SLUICE_CLASS_PROMPT;

    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];

        if (c == '@') {
            if (is_email(s, i))
                found |= SLUICE_CLASS_EMAIL;
            continue;
        }
        if (c == ':') {
            if (is_url_with_credentials(s, i))
                found |= SLUICE_CLASS_SECRET;
            if (starts_word(s, i) && is_hex_address(s, i))
                found |= SLUICE_CLASS_NETWORK_ADDRESS;
            continue;
        }
        if (c == '-' && has_at(s, i, "-----begin ", 11)) {
            for (size_t k = i + 11; k < s.len && k < i + 48 && s.ptr[k] != '\n'; k++)
                if (has_at(s, k, "private key", 11))
                    found |= SLUICE_CLASS_SECRET;
            continue;
        }
        if (!is_alnum(c) || !starts_word(s, i))
            continue;
        if (is_digit(c))
            found |= number_classes(s, i);
        found |= code_classes(s, i);
        if (hex_value(c) >= 0 && at(s, i - 1) != ':' && is_hex_address(s, i))
            found |= SLUICE_CLASS_NETWORK_ADDRESS;
        if (!is_alpha(c))
            continue;
        if (is_key_at(s, i) || is_told_secret(s, i))
            found |= SLUICE_CLASS_SECRET;
        if (has_word(health_words[lower(c) - 'a'], s, i))
            found |= SLUICE_CLASS_HEALTH;
        if (has_word(finance_words[lower(c) - 'a'], s, i))
            found |= SLUICE_CLASS_FINANCE;
    }
    return found;
}
