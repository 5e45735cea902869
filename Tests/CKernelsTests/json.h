/* json.h: reads the fixtures' manifests in place. A value is a pointer to its first character; NULL stands for one
 * that is not there, and every function passes it on. The text is trusted to be JSON. */
#ifndef LSPAN_TEST_JSON_H
#define LSPAN_TEST_JSON_H

#include <stdlib.h>
#include <string.h>

static inline const char *json_space(const char *text)
{
    return text + strspn(text, " \t\r\n,:");
}

/* One past the end of the value at `text`. */
static inline const char *json_skip(const char *text)
{
    int depth = 0;
    do {
        text = json_space(text);
        if (*text == '"') {
            for (text++; *text && *text != '"'; text++) text += *text == '\\' && text[1];
            text += *text == '"';
        } else if (*text == '{' || *text == '[') {
            depth++;
            text++;
        } else if (*text == '}' || *text == ']') {
            depth--;
            text++;
        } else {
            text += strcspn(text, " \t\r\n,:]}");
        }
    } while (depth > 0 && *text);
    return text;
}

static inline const char *json_member(const char *object, const char *name)
{
    if (!object || *object != '{') return NULL;
    size_t length = strlen(name);
    const char *text = json_space(object + 1);
    while (*text == '"') {
        int found = strncmp(text + 1, name, length) == 0 && text[1 + length] == '"';
        text = json_space(json_skip(text));
        if (found) return text;
        text = json_space(json_skip(text));
    }
    return NULL;
}

static inline const char *json_item(const char *array, long index)
{
    if (!array || *array != '[') return NULL;
    const char *text = json_space(array + 1);
    for (; *text && *text != ']'; text = json_space(json_skip(text))) {
        if (index-- == 0) return text;
    }
    return NULL;
}

static inline long json_count(const char *array)
{
    long count = 0;
    while (json_item(array, count)) count++;
    return count;
}

static inline double json_number(const char *value)
{
    return !value ? 0 : strncmp(value, "true", 4) == 0 ? 1 : strtod(value, NULL);
}

/* The value is the string `text`. */
static inline int json_is(const char *value, const char *text)
{
    size_t length = strlen(text);
    return value && *value == '"' && strncmp(value + 1, text, length) == 0 && value[1 + length] == '"';
}

#endif
