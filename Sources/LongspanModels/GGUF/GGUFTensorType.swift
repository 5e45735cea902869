// The constants keep the names that ggml and its files use.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

/// The element type of a GGUF tensor: ggml's numeric id.
///
/// The set is open: ids that Longspan has never heard of can be represented and compared, but have no
/// ``layout``, and a file that holds a tensor of such a type is refused.
public struct GGUFTensorType: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  public let rawValue: UInt32

  public init(rawValue: UInt32) {
    self.rawValue = rawValue
  }

  /// IEEE 754 binary32.
  public static let f32 = GGUFTensorType(rawValue: 0)
  /// IEEE 754 binary16.
  public static let f16 = GGUFTensorType(rawValue: 1)
  /// ggml's Q4_0, see ``/LongspanKernels/WeightType``.
  public static let q4_0 = GGUFTensorType(rawValue: 2)
  /// ggml's Q4_1, see ``/LongspanKernels/WeightType``.
  public static let q4_1 = GGUFTensorType(rawValue: 3)
  /// ggml's Q5_0, see ``/LongspanKernels/WeightType``.
  public static let q5_0 = GGUFTensorType(rawValue: 6)
  /// ggml's Q5_1, see ``/LongspanKernels/WeightType``.
  public static let q5_1 = GGUFTensorType(rawValue: 7)
  /// ggml's Q8_0, see ``/LongspanKernels/WeightType``.
  public static let q8_0 = GGUFTensorType(rawValue: 8)
  /// ggml's Q4_K, see ``/LongspanKernels/WeightType``.
  public static let q4_K = GGUFTensorType(rawValue: 12)
  /// ggml's Q5_K.
  public static let q5_K = GGUFTensorType(rawValue: 13)
  /// ggml's Q6_K, see ``/LongspanKernels/WeightType``.
  public static let q6_K = GGUFTensorType(rawValue: 14)
  /// The upper half of a binary32.
  public static let bf16 = GGUFTensorType(rawValue: 30)

  /// How a row of elements is stored: in blocks of `blockSize` elements, `bytesPerBlock` bytes each.
  public struct Layout: Hashable, Sendable {
    /// ggml's name of the type, such as "Q4_K".
    public let name: String
    /// Elements in a block; 1 for types that are not quantized.
    public let blockSize: Int
    /// Bytes that a block takes.
    public let bytesPerBlock: Int
  }

  /// The type's block layout, or nil for an id that ggml has not defined or has withdrawn.
  public var layout: Layout? {
    Self.layouts[rawValue]
  }

  /// Elements in a block, or nil for an unknown type.
  public var blockSize: Int? { layout?.blockSize }

  /// Bytes that a block takes, or nil for an unknown type.
  public var bytesPerBlock: Int? { layout?.bytesPerBlock }

  /// ggml's name of the type, such as "Q4_K", or "type 99" for an unknown id.
  public var name: String {
    layout?.name ?? "type \(rawValue)"
  }

  public var description: String { name }

  /// Block layouts by id, from `ggml_type` and the `block_*` structures of ggml (ggml.h, ggml-common.h).
  /// Ids that are absent were withdrawn (4, 5, 31 to 33, 36 to 38) or never given.
  private static let layouts: [UInt32: Layout] = [
    0: Layout(name: "F32", blockSize: 1, bytesPerBlock: 4),
    1: Layout(name: "F16", blockSize: 1, bytesPerBlock: 2),
    2: Layout(name: "Q4_0", blockSize: 32, bytesPerBlock: 18),
    3: Layout(name: "Q4_1", blockSize: 32, bytesPerBlock: 20),
    6: Layout(name: "Q5_0", blockSize: 32, bytesPerBlock: 22),
    7: Layout(name: "Q5_1", blockSize: 32, bytesPerBlock: 24),
    8: Layout(name: "Q8_0", blockSize: 32, bytesPerBlock: 34),
    9: Layout(name: "Q8_1", blockSize: 32, bytesPerBlock: 36),
    10: Layout(name: "Q2_K", blockSize: 256, bytesPerBlock: 84),
    11: Layout(name: "Q3_K", blockSize: 256, bytesPerBlock: 110),
    12: Layout(name: "Q4_K", blockSize: 256, bytesPerBlock: 144),
    13: Layout(name: "Q5_K", blockSize: 256, bytesPerBlock: 176),
    14: Layout(name: "Q6_K", blockSize: 256, bytesPerBlock: 210),
    15: Layout(name: "Q8_K", blockSize: 256, bytesPerBlock: 292),
    16: Layout(name: "IQ2_XXS", blockSize: 256, bytesPerBlock: 66),
    17: Layout(name: "IQ2_XS", blockSize: 256, bytesPerBlock: 74),
    18: Layout(name: "IQ3_XXS", blockSize: 256, bytesPerBlock: 98),
    19: Layout(name: "IQ1_S", blockSize: 256, bytesPerBlock: 50),
    20: Layout(name: "IQ4_NL", blockSize: 32, bytesPerBlock: 18),
    21: Layout(name: "IQ3_S", blockSize: 256, bytesPerBlock: 110),
    22: Layout(name: "IQ2_S", blockSize: 256, bytesPerBlock: 82),
    23: Layout(name: "IQ4_XS", blockSize: 256, bytesPerBlock: 136),
    24: Layout(name: "I8", blockSize: 1, bytesPerBlock: 1),
    25: Layout(name: "I16", blockSize: 1, bytesPerBlock: 2),
    26: Layout(name: "I32", blockSize: 1, bytesPerBlock: 4),
    27: Layout(name: "I64", blockSize: 1, bytesPerBlock: 8),
    28: Layout(name: "F64", blockSize: 1, bytesPerBlock: 8),
    29: Layout(name: "IQ1_M", blockSize: 256, bytesPerBlock: 56),
    30: Layout(name: "BF16", blockSize: 1, bytesPerBlock: 2),
    34: Layout(name: "TQ1_0", blockSize: 256, bytesPerBlock: 54),
    35: Layout(name: "TQ2_0", blockSize: 256, bytesPerBlock: 66),
    39: Layout(name: "MXFP4", blockSize: 32, bytesPerBlock: 17),
    40: Layout(name: "NVFP4", blockSize: 64, bytesPerBlock: 36),
    41: Layout(name: "Q1_0", blockSize: 128, bytesPerBlock: 18),
  ]
}
