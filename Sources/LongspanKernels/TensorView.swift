import CKernels

/// How an element of an input or output is stored. C: `lspan_dtype`.
public enum ElementType: String, Sendable, CaseIterable {
  /// IEEE 754 binary32.
  case f32
  /// IEEE 754 binary16.
  case f16
  /// The upper half of a binary32.
  case bf16

  /// Bytes of an element.
  public var byteCount: Int { self == .f32 ? 4 : 2 }

  var code: lspan_dtype {
    switch self {
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    }
  }
}

/// The shape and strides of a `[tokens, heads, columns]` tensor with contiguous columns. A matrix has one head.
///
/// Strides count elements.
public struct TensorLayout: Sendable, Equatable {
  /// How its elements are stored.
  public var elementType: ElementType
  /// Tokens, or rows of a matrix.
  public var tokens: Int
  /// Heads of a token; 1 for a matrix.
  public var heads: Int
  /// Elements of a head, or columns of a matrix; they are contiguous.
  public var columns: Int
  /// Elements from a token to the next.
  public var tokenStride: Int
  /// Elements from a head to the next.
  public var headStride: Int

  /// A layout; strides left out are those of a contiguous token-major tensor.
  public init(
    _ elementType: ElementType = .f32, tokens: Int, heads: Int = 1, columns: Int, tokenStride: Int? = nil,
    headStride: Int? = nil
  ) {
    self.elementType = elementType
    self.tokens = tokens
    self.heads = heads
    self.columns = columns
    // a product that overflows here also overflows in `requireBytes`, which then says so
    self.tokenStride = tokenStride ?? heads.multipliedReportingOverflow(by: columns).partialValue
    self.headStride = headStride ?? columns
  }

  /// Throws unless every element lies within `byteCount` bytes.
  func requireBytes(_ byteCount: Int) throws(LongspanError) {
    guard tokens >= 0, heads >= 0, columns >= 0 else {
      throw LongspanError(.badShape, "a tensor of \(tokens) x \(heads) x \(columns) has a negative dimension")
    }
    guard tokenStride >= 0, headStride >= 0 else {
      throw LongspanError(.badStride, "strides \(tokenStride) and \(headStride): a stride is negative")
    }
    if tokens == 0 || heads == 0 || columns == 0 { return }
    let (a, overflowA) = (tokens - 1).multipliedReportingOverflow(by: tokenStride)
    let (b, overflowB) = (heads - 1).multipliedReportingOverflow(by: headStride)
    let (c, overflowC) = a.addingReportingOverflow(b)
    let (last, overflowD) = c.addingReportingOverflow(columns)
    let (bytes, overflowE) = last.multipliedReportingOverflow(by: elementType.byteCount)
    guard !(overflowA || overflowB || overflowC || overflowD || overflowE) else {
      throw LongspanError(.overflow, "a tensor of \(tokens) x \(heads) x \(columns) does not fit in 64 bits")
    }
    guard bytes <= byteCount else {
      throw LongspanError(
        .badShape,
        "a tensor of \(tokens) x \(heads) x \(columns) \(elementType.rawValue) needs \(bytes) bytes, "
          + "but its memory has \(byteCount)")
    }
  }
}

/// A read-only `[tokens, heads, columns]` view of memory that someone else owns. C: `lspan_heads`, `lspan_matrix`.
public struct TensorView: ~Escapable {
  let bytes: RawSpan
  /// Shape and strides.
  public let layout: TensorLayout

  /// Views bytes, which must hold every element of `layout`.
  @_lifetime(copy bytes)
  public init(_ bytes: RawSpan, _ layout: TensorLayout) throws(LongspanError) {
    try layout.requireBytes(bytes.byteCount)
    self.bytes = bytes
    self.layout = layout
  }

  /// Views floats as a contiguous tensor.
  @_lifetime(copy floats)
  public init(_ floats: Span<Float>, tokens: Int, heads: Int = 1, columns: Int) throws(LongspanError) {
    let layout = TensorLayout(tokens: tokens, heads: heads, columns: columns)
    try layout.requireBytes(floats.count * 4)
    self.bytes = floats.bytes
    self.layout = layout
  }

  /// One head of this tensor.
  ///
  /// - Throws: ``LongspanError`` with ``LongspanError/Code/badIndex`` if there is no such head.
  @_lifetime(copy self)
  public func head(_ head: Int) throws(LongspanError) -> TensorView {
    guard head >= 0, head < layout.heads else {
      throw LongspanError(.badIndex, "head \(head) is outside the \(layout.heads) of a tensor")
    }
    var layout = layout
    layout.heads = 1
    let offset = min(bytes.byteCount, head * layout.headStride * layout.elementType.byteCount)
    return try TensorView(bytes.extracting(offset..<bytes.byteCount), layout)
  }

  /// The first `tokens` tokens of this tensor.
  ///
  /// - Throws: ``LongspanError`` with ``LongspanError/Code/badIndex`` if it has fewer.
  @_lifetime(copy self)
  public func first(_ tokens: Int) throws(LongspanError) -> TensorView {
    guard tokens >= 0, tokens <= layout.tokens else {
      throw LongspanError(.badIndex, "a tensor of \(layout.tokens) tokens has no first \(tokens)")
    }
    var layout = layout
    layout.tokens = tokens
    return try TensorView(bytes, layout)
  }

  var heads: lspan_heads {
    lspan_heads(
      data: bytes.baseAddress, dtype: layout.elementType.code, token_stride: Int64(layout.tokenStride),
      head_stride: Int64(layout.headStride))
  }

  /// Throws unless this is a matrix, named `role` in the error.
  func matrix(_ role: String) throws(LongspanError) -> lspan_matrix {
    guard layout.heads == 1 else {
      throw LongspanError(.badShape, "\(role): a matrix has 1 head, not \(layout.heads)")
    }
    return lspan_matrix(
      data: bytes.baseAddress, dtype: layout.elementType.code, row_stride: Int64(layout.tokenStride))
  }
}

/// A writable `[tokens, heads, columns]` view of memory that someone else owns. C: `lspan_heads_out`.
public struct MutableTensorView: ~Copyable, ~Escapable {
  var bytes: MutableRawSpan
  /// Shape and strides.
  public let layout: TensorLayout

  /// Views bytes, which must hold every element of `layout`.
  @_lifetime(copy bytes)
  public init(_ bytes: consuming MutableRawSpan, _ layout: TensorLayout) throws(LongspanError) {
    try layout.requireBytes(bytes.byteCount)
    self.bytes = bytes
    self.layout = layout
  }

  var heads: lspan_heads_out {
    mutating get {
      lspan_heads_out(
        data: bytes.mutableBaseAddress, dtype: layout.elementType.code,
        token_stride: Int64(layout.tokenStride), head_stride: Int64(layout.headStride))
    }
  }
}

// nil for no elements, whose memory C must not touch. The addresses below outlive the closures that yield them, but not the spans they come from: each is used only for
// one C call in a function that holds the span, and the C library keeps no pointer.

extension RawSpan {
  var baseAddress: UnsafeRawPointer? { isEmpty ? nil : withUnsafeBytes { $0.baseAddress } }
}

extension MutableRawSpan {
  var mutableBaseAddress: UnsafeMutableRawPointer? {
    mutating get { isEmpty ? nil : withUnsafeMutableBytes { $0.baseAddress } }
  }
}

extension Span where Element: BitwiseCopyable {
  var baseAddress: UnsafePointer<Element>? { isEmpty ? nil : withUnsafeBufferPointer { $0.baseAddress } }
}

extension MutableSpan where Element: BitwiseCopyable {
  var mutableBaseAddress: UnsafeMutablePointer<Element>? {
    mutating get { isEmpty ? nil : withUnsafeMutableBufferPointer { $0.baseAddress } }
  }
}

/// Throws unless `count` elements are there, naming the argument.
func requireCount(_ count: Int, in available: Int, _ role: String) throws(LongspanError) {
  guard count <= available else {
    throw LongspanError(.badShape, "\(role): \(count) elements are needed, but it has \(available)")
  }
}

/// The product of two sizes that may come from anywhere.
func checkedProduct(_ a: Int, _ b: Int, _ role: String) throws(LongspanError) -> Int {
  guard a >= 0, b >= 0 else {
    throw LongspanError(.badShape, "\(role): \(a) x \(b) has a negative dimension")
  }
  let (product, overflow) = a.multipliedReportingOverflow(by: b)
  guard !overflow else { throw LongspanError(.overflow, "\(role): \(a) x \(b) does not fit in 64 bits") }
  return product
}
