/// Where a tensor lies in a GGUF file, and how to read it.
public struct GGUFTensor: Hashable, Sendable {
  /// The tensor's name, such as "blk.0.attn_q.weight".
  public let name: String

  /// The extents in GGUF order: `shape[0]` is ne[0], the contiguous (innermost) dimension.
  ///
  /// A weight matrix that maps I inputs to O outputs is stored as O rows of I elements and has the shape
  /// `[I, O]`; NumPy and PyTorch would call it (O, I). There are 1 to 4 extents, each at least 1.
  public let shape: [Int]

  /// The element type.
  public let type: GGUFTensorType

  /// The byte at which the tensor's data begins, counted from the beginning of the file.
  public let offset: Int

  /// The bytes that the tensor's data takes.
  public let byteCount: Int

  /// The product of ``shape``.
  public var elementCount: Int {
    shape.reduce(1, *)
  }
}
