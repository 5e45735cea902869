/* precision_f64.h: makes the next included body a double-precision one. No include guard: used once per body. */
#undef LSPAN_REFERENCE_REAL
#undef LSPAN_REFERENCE_NAME
#undef LSPAN_REFERENCE_MATH
#define LSPAN_REFERENCE_REAL double
#define LSPAN_REFERENCE_NAME(function) lspan_reference_##function##_f64
#define LSPAN_REFERENCE_MATH(function) function
