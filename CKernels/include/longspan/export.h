/* export.h: symbol visibility, version notes and enum attributes shared by every header. */
#ifndef LONGSPAN_EXPORT_H
#define LONGSPAN_EXPORT_H

#if defined(__GNUC__)
#define LSPAN_API __attribute__((visibility("default")))
#else
#define LSPAN_API
#endif

/* The version in which the declaration that follows came. Expands to nothing. */
#define LSPAN_SINCE(major, minor)

/* Open enums arrive in Swift as enums that may gain cases; gcc knows no such attribute. */
#if defined(__clang__)
#define LSPAN_OPEN_ENUM __attribute__((enum_extensibility(open)))
#else
#define LSPAN_OPEN_ENUM
#endif

#if defined(__cplusplus)
#define LSPAN_BEGIN_DECLS extern "C" {
#define LSPAN_END_DECLS }
#else
#define LSPAN_BEGIN_DECLS
#define LSPAN_END_DECLS
#endif

#endif
