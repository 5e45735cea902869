import CKernels

/// How a weight matrix is stored; raw values are GGUF's tensor type ids. C: `lspan_block_type`.
public enum WeightType: UInt32, Sendable, CaseIterable {
  // These are the format's own names.
  /// IEEE 754 binary32.
  case f32 = 0
  /// IEEE 754 binary16.
  case f16 = 1
  /// 4 bits and a scale for 32 elements.
  // swift-format-ignore: AlwaysUseLowerCamelCase
  case q4_0 = 2
  /// 4 bits, a scale and a minimum for 32 elements.
  // swift-format-ignore: AlwaysUseLowerCamelCase
  case q4_1 = 3
  /// 5 bits and a scale for 32 elements.
  // swift-format-ignore: AlwaysUseLowerCamelCase
  case q5_0 = 6
  /// 5 bits, a scale and a minimum for 32 elements.
  // swift-format-ignore: AlwaysUseLowerCamelCase
  case q5_1 = 7
  /// 8 bits and a scale for 32 elements.
  // swift-format-ignore: AlwaysUseLowerCamelCase
  case q8_0 = 8
  /// 4 bits for 256 elements, with a 6-bit scale and minimum for 32.
  // swift-format-ignore: AlwaysUseLowerCamelCase
  case q4_K = 12
  /// 6 bits for 256 elements, with an 8-bit scale for 16.
  // swift-format-ignore: AlwaysUseLowerCamelCase
  case q6_K = 14
  /// The upper half of a binary32.
  case bf16 = 30

  var code: lspan_block_type {
    switch self {
    case .f32: .f32
    case .f16: .f16
    case .q4_0: .q4_0
    case .q4_1: .q4_1
    case .q5_0: .q5_0
    case .q5_1: .q5_1
    case .q8_0: .q8_0
    case .q4_K: .q4_k
    case .q6_K: .q6_k
    case .bf16: .bf16
    }
  }

  /// Elements of one block; a row is a whole number of blocks.
  public var blockElements: Int { layout.elements }
  /// Bytes of one block.
  public var blockBytes: Int { layout.bytes }

  private var layout: (elements: Int, bytes: Int) {
    var elements: Int64 = 0
    var bytes: Int64 = 0
    lspan_block_type_layout(code, &elements, &bytes)
    return (Int(elements), Int(bytes))
  }
}

/// A weight matrix `[rows, columns]` with contiguous rows, in memory of its own or in a file's mapping.
public final class WeightMatrix: Sendable {
  /// How it is stored.
  public let type: WeightType
  /// Outputs of the matrix, or entries of a table.
  public let rows: Int
  /// Inputs of the matrix, or channels of an entry.
  public let columns: Int
  private let memory: Memory

  private enum Memory: Sendable {
    case owned(FloatStorage)
    case mapped(address: UInt, owner: any AnyObject & Sendable)
  }

  /// A box, because an enum that is copied cannot hold a noncopyable owner.
  private final class FloatStorage: Sendable {
    let buffer: AlignedBuffer<Float>
    init(_ buffer: consuming AlignedBuffer<Float>) { self.buffer = buffer }
  }

  /// Wraps memory that `owner` keeps alive and unchanged, without a copy.
  ///
  /// - Throws: ``LongspanError`` if the bytes are not those of the shape, or misaligned for the type.
  public init(
    _ type: WeightType, rows: Int, columns: Int, bytes: UnsafeRawBufferPointer,
    owner: any AnyObject & Sendable
  ) throws(LongspanError) {
    let needed = try Self.byteCount(type, rows: rows, columns: columns)
    guard needed == bytes.count else {
      throw LongspanError(
        .badShape, "weights of \(rows) x \(columns) \(type) take \(needed) bytes, not \(bytes.count)")
    }
    let alignment = type.blockElements == 1 ? type.blockBytes : 1
    guard UInt(bitPattern: bytes.baseAddress) % UInt(alignment) == 0 else {
      throw LongspanError(
        .badAlignment, "weights of type \(type) do not start at a multiple of \(alignment) bytes")
    }
    self.type = type
    self.rows = rows
    self.columns = columns
    memory = .mapped(address: UInt(bitPattern: bytes.baseAddress), owner: owner)
  }

  /// Bytes of a matrix.
  ///
  /// - Throws: ``LongspanError`` if rows are not whole blocks, or the count does not fit.
  public static func byteCount(_ type: WeightType, rows: Int, columns: Int) throws(LongspanError) -> Int {
    guard columns >= 0, columns % type.blockElements == 0 else {
      throw LongspanError(
        .badShape, "\(columns) columns are not whole blocks of \(type.blockElements) (\(type))")
    }
    let rowBytes = try checkedProduct(columns / type.blockElements, type.blockBytes, "weights")
    return try checkedProduct(rows, rowBytes, "weights")
  }

  private init(rows: Int, columns: Int, values: consuming AlignedBuffer<Float>) {
    type = .f32
    self.rows = rows
    self.columns = columns
    memory = .owned(FloatStorage(values))
  }

  /// Bytes of the weights as they are stored.
  public var byteCount: Int { rows * (columns / type.blockElements) * type.blockBytes }
  /// Bytes of memory of its own; 0 in a mapping.
  public var ownedByteCount: Int {
    if case .owned = memory { byteCount } else { 0 }
  }

  var weights: lspan_weights {
    let address: UnsafeRawPointer? =
      switch memory {
      case .owned(let floats): UnsafeRawPointer(floats.buffer.storage.baseAddress)
      case .mapped(let address, _): UnsafeRawPointer(bitPattern: address)
      }
    return lspan_weights(data: address, type: type.code, rows: Int64(rows), columns: Int64(columns))
  }

  /// The matrix decoded to f32 in memory of its own.
  public func dequantized(on context: KernelContext) throws(LongspanError) -> WeightMatrix {
    var values = try AlignedBuffer<Float>(count: rows * columns)
    var span = values.mutableSpan
    try context.dequantize(self, into: &span)
    return WeightMatrix(rows: rows, columns: columns, values: values)
  }
}

extension KernelContext {
  /// Decodes a weight matrix to f32.
  ///
  /// - Parameter output: `[rows, columns]`, contiguous.
  public func dequantize(
    _ weights: WeightMatrix, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    try requireCount(try checkedProduct(weights.rows, weights.columns, "output"), in: output.count, "output")
    var call = weights.weights
    let status = lspan_dequantize(handle, &call, output.mutableBaseAddress)
    try LongspanError.check(status, "dequantizing \(weights.rows) x \(weights.columns) \(weights.type)")
  }

  /// y = x W^T, or y += x W^T, through OpenBLAS.
  ///
  /// - Parameters:
  ///   - input: `[rows, W.columns]`, f32 with any row stride.
  ///   - weights: `[W.rows, W.columns]`.
  ///   - accumulating: adds to what `output` holds.
  ///   - output: `[rows, W.rows]`, contiguous.
  public func linear(
    _ input: borrowing TensorView, _ weights: WeightMatrix, accumulating: Bool = false,
    workspace: inout Workspace,
    into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let layout = input.layout
    func what() -> String {
      "product of \(layout.tokens) x \(layout.columns) and \(weights.rows) x \(weights.columns)"
    }
    guard layout.columns == weights.columns, layout.heads == 1, layout.elementType == .f32 else {
      throw LongspanError(.badShape, "\(what()): the input must be an f32 matrix as wide as the weights")
    }
    try requireCount(try checkedProduct(layout.tokens, weights.rows, "output"), in: output.count, "output")
    var call = lspan_linear(
      weights: weights.weights, rows: Int64(layout.tokens),
      input: input.bytes.baseAddress?.assumingMemoryBound(to: Float.self),
      input_row_stride: Int64(layout.tokenStride), output: output.mutableBaseAddress,
      output_row_stride: Int64(weights.rows), accumulate: accumulating ? 1 : 0)
    var bytes = 0
    try LongspanError.check(lspan_linear_workspace_size(handle, &call, &bytes), what())
    let scratch = try workspace.reserve(bytes)
    try LongspanError.check(lspan_linear_run(handle, &call, scratch, bytes), what())
  }

  /// Rows of an embedding table.
  ///
  /// - Parameters:
  ///   - ids: `[T]`, each below `table.rows`.
  ///   - output: `[T, table.columns]`, contiguous.
  public func embed(
    _ ids: Span<Int32>, table: WeightMatrix, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    try requireCount(try checkedProduct(ids.count, table.columns, "output"), in: output.count, "output")
    var call = table.weights
    let status = lspan_embedding(
      handle, &call, Int64(ids.count), ids.baseAddress, output.mutableBaseAddress, Int64(table.columns))
    if status == .bad_index {
      throw LongspanError(.badIndex, "a token id is outside 0 to \(table.rows - 1)")
    }
    try LongspanError.check(status, "embedding of \(ids.count) tokens")
  }
}
