import CKernels

/// A weight matrix `[rows, columns]` in the order in which products stream it: the same values as the blocks it was made
/// of. C: `lspan_packed_weights`.
///
/// Packing reads all weights once and takes as many bytes again, or up to 3% more where rows and columns are multiples
/// of 32 and 64; the matrix it was made of is not needed any more.
public final class PackedWeights: Sendable {
  /// The type of the blocks that were packed.
  public let type: WeightType
  /// Outputs of the matrix.
  public let rows: Int
  /// Inputs of the matrix.
  public let columns: Int
  /// Bytes of the packed weights, padding included.
  public let byteCount: Int
  private let memory: Memory

  private enum Memory: Sendable {
    case owned(ByteStorage)
    case reserved(ReservedMemory, offset: Int)
  }

  /// A box, because an enum that is copied cannot hold a noncopyable owner.
  private final class ByteStorage: Sendable {
    let buffer: AlignedBuffer<UInt8>
    init(_ buffer: consuming AlignedBuffer<UInt8>) { self.buffer = buffer }
  }

  private init(_ weights: WeightMatrix, _ byteCount: Int, _ memory: Memory) {
    type = weights.type
    rows = weights.rows
    columns = weights.columns
    self.byteCount = byteCount
    self.memory = memory
  }

  /// Packs weights into memory of its own.
  ///
  /// - Throws: ``LongspanError`` with ``LongspanError/Code/badElementType`` for a type that cannot be packed,
  ///   ``LongspanError/Code/insufficientMemory``.
  public convenience init(_ weights: WeightMatrix, on context: KernelContext) throws(LongspanError) {
    let bytes = try Self.byteCount(weights.type, rows: weights.rows, columns: weights.columns)
    var buffer = try AlignedBuffer<UInt8>(count: bytes)
    var span = buffer.mutableSpan
    try Self.pack(weights, on: context, into: span.mutableBaseAddress, bytes)
    self.init(weights, bytes, .owned(ByteStorage(buffer)))
  }

  /// Packs weights into a part of a reservation, which many matrices can share.
  ///
  /// - Parameters:
  ///   - memory: is kept alive; nobody may write to these bytes afterwards.
  ///   - offset: of the first byte, a multiple of ``alignment``; ``byteCount(_:rows:columns:)`` bytes follow.
  /// - Throws: ``LongspanError`` with ``LongspanError/Code/badElementType`` for a type that cannot be packed,
  ///   ``LongspanError/Code/badAlignment``, or ``LongspanError/Code/badIndex`` outside the reservation.
  public convenience init(
    _ weights: WeightMatrix, on context: KernelContext, into memory: ReservedMemory, at offset: Int
  ) throws(LongspanError) {
    let bytes = try Self.byteCount(weights.type, rows: weights.rows, columns: weights.columns)
    guard offset % Self.alignment == 0 else {
      throw LongspanError(
        .badAlignment, "packed weights at byte \(offset): not a multiple of \(Self.alignment)")
    }
    let (end, overflow) = offset.addingReportingOverflow(bytes)
    guard offset >= 0, !overflow, end <= memory.byteCount else {
      throw LongspanError(
        .badIndex,
        "\(bytes) bytes of packed weights at byte \(offset) are outside a reservation of \(memory.byteCount)")
    }
    try memory.withMutableBytes(offset..<end) { part throws(LongspanError) in
      try Self.pack(weights, on: context, into: part.mutableBaseAddress, bytes)
    }
    self.init(weights, bytes, .reserved(memory, offset: offset))
  }

  private static func pack(
    _ weights: WeightMatrix, on context: KernelContext, into memory: UnsafeMutableRawPointer?, _ bytes: Int
  ) throws(LongspanError) {
    var call = weights.weights
    try LongspanError.check(
      lspan_pack_weights(context.handle, &call, memory, bytes),
      "packing weights of \(weights.rows) x \(weights.columns) \(weights.type)")
  }

  /// Bytes that the start of packed weights is a multiple of.
  public static let alignment = Int(LSPAN_WORKSPACE_ALIGNMENT)

  /// Whether weights of a type can be packed.
  public static func canPack(_ type: WeightType) -> Bool {
    var bytes = 0
    return lspan_packed_bytes(type.code, 1, Int64(type.blockElements), &bytes) == .ok
  }

  /// Bytes of a packed matrix.
  ///
  /// - Throws: ``LongspanError`` if the type cannot be packed, rows are not whole blocks, or the count does not fit.
  public static func byteCount(_ type: WeightType, rows: Int, columns: Int) throws(LongspanError) -> Int {
    guard canPack(type) else {
      let names = WeightType.allCases.filter(canPack).map { "\($0)" }.joined(separator: ", ")
      throw LongspanError(
        .badElementType, "weights of type \(type) cannot be packed; those of \(names) can")
    }
    // says what is wrong with a shape in words
    _ = try WeightMatrix.byteCount(type, rows: rows, columns: columns)
    var bytes = 0
    try LongspanError.check(
      lspan_packed_bytes(type.code, Int64(rows), Int64(columns), &bytes),
      "packing weights of \(rows) x \(columns) \(type)")
    return bytes
  }

  /// Bytes of memory of its own; 0 in a reservation.
  public var ownedByteCount: Int {
    if case .owned = memory { byteCount } else { 0 }
  }

  var weights: lspan_packed_weights {
    let address: UnsafeRawPointer? =
      switch memory {
      case .owned(let bytes): UnsafeRawPointer(bytes.buffer.storage.baseAddress)
      case .reserved(let reserved, let offset): reserved.address(offset)
      }
    return lspan_packed_weights(data: address, type: type.code, rows: Int64(rows), columns: Int64(columns))
  }
}
