/* precision_f32.h: makes the next included body a single-precision one. No include guard: used once per body. */
#undef LSPAN_REFERENCE_REAL
#undef LSPAN_REFERENCE_NAME
#undef LSPAN_REFERENCE_MATH
#define LSPAN_REFERENCE_REAL float
#define LSPAN_REFERENCE_NAME(function) lspan_reference_##function##_f32
#define LSPAN_REFERENCE_MATH(function) function##f
