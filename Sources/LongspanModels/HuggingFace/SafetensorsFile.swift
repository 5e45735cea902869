import LongspanKernels

/// An open file of safetensors: an 8-byte little-endian header length, a JSON header that says where each tensor lies, and
/// the tensors' bytes.
///
/// Every tensor listed lies wholly within the file, is as long as its shape and type ask, and overlaps no other. Its bytes
/// stay in the file's mapping.
///
/// Format: https://huggingface.co/docs/safetensors.
struct SafetensorsFile: ~Copyable, Sendable {
  /// The path's last component, with which error messages begin.
  let name: String
  private let mapping: MappedFile
  private let tensors: [String: Tensor]

  struct Tensor: Sendable {
    let type: String
    /// Outermost first, as the file has it.
    let shape: [Int]
    let bytes: Range<Int>
  }

  /// The format's own limit.
  private static let mostHeaderBytes = 100_000_000

  /// Opens a file and checks its header.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with ``/LongspanKernels/LongspanError/Code/unreadableFile`` if it
  ///   cannot be opened or mapped, and ``/LongspanKernels/LongspanError/Code/invalidFile`` for everything that breaks
  ///   the format, naming the tensor.
  init(path: String) throws(LongspanError) {
    let name = path.split(separator: "/").last.map(String.init) ?? path
    let mapping = try MappedFile(path: path)
    tensors = try Self.tensors(of: mapping, name)
    self.mapping = mapping
    self.name = name
  }

  var byteCount: Int { mapping.byteCount }
  var tensorNames: [String] { tensors.keys.sorted() }

  subscript(name: String) -> Tensor? { tensors[name] }

  func withUnsafeBytes<Result: ~Copyable>(
    of tensor: Tensor, _ body: (UnsafeRawBufferPointer) throws(LongspanError) -> Result
  ) throws(LongspanError) -> Result {
    try mapping.bytes.extracting(tensor.bytes).withUnsafeBytes(body)
  }

  private static func tensors(
    of mapping: borrowing MappedFile, _ name: String
  ) throws(LongspanError) -> [String: Tensor] {
    let bytes = mapping.bytes
    guard bytes.byteCount >= 8 else {
      throw LongspanError(.invalidFile, "\(name): \(bytes.byteCount) bytes are too few for safetensors")
    }
    let length = UInt64(littleEndian: bytes.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt64.self))
    guard length >= 2, length <= UInt64(min(mostHeaderBytes, bytes.byteCount - 8)) else {
      throw LongspanError(
        .invalidFile,
        "\(name): a header of \(length) bytes does not fit in \(bytes.byteCount): the file is cut off, or is not "
          + "safetensors")
    }
    let start = 8 + Int(length)
    let header = try JSONFile.decode(Header.self, bytes.extracting(8..<start), fileName: name)
    var tensors: [String: Tensor] = [:]
    for (key, entry) in header.entries {
      tensors[key] = try entry.placed(
        from: start, within: bytes.byteCount, what: "\(name): tensor '\(key)'")
    }
    try requireApart(tensors, name)
    return tensors
  }

  /// Throws if two tensors share bytes.
  private static func requireApart(_ tensors: [String: Tensor], _ name: String) throws(LongspanError) {
    let sorted = tensors.sorted { $0.value.bytes.lowerBound < $1.value.bytes.lowerBound }
    for (first, second) in zip(sorted, sorted.dropFirst())
    where first.value.bytes.upperBound > second.value.bytes.lowerBound {
      throw LongspanError(
        .invalidFile, "\(name): tensors '\(first.key)' and '\(second.key)' overlap")
    }
  }
}

extension SafetensorsFile {
  /// The header: tensors by name, beside free text under `__metadata__`.
  private struct Header: Decodable {
    var entries: [String: Entry] = [:]

    private struct Key: CodingKey {
      let stringValue: String
      var intValue: Int? { nil }
      init(stringValue: String) { self.stringValue = stringValue }
      init?(intValue: Int) { nil }
    }

    init(from decoder: any Decoder) throws {
      let values = try decoder.container(keyedBy: Key.self)
      for key in values.allKeys where key.stringValue != "__metadata__" {
        entries[key.stringValue] = try values.decode(Entry.self, forKey: key)
      }
    }
  }

  private struct Entry: Decodable {
    let dtype: String
    let shape: [Int]
    let offsets: [Int]

    private enum CodingKeys: String, CodingKey {
      case dtype, shape
      case offsets = "data_offsets"
    }

    /// Bytes of an element by type.
    private static let widths = [
      "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4,
      "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    ]

    /// Where the tensor lies in a file of `byteCount` bytes whose data begin at `start`.
    func placed(from start: Int, within byteCount: Int, what: String) throws(LongspanError) -> Tensor {
      guard let width = Self.widths[dtype] else {
        throw LongspanError(.unsupported, "\(what) has the unknown type '\(dtype)'")
      }
      guard offsets.count == 2, offsets[0] >= 0, offsets[0] <= offsets[1], offsets[1] <= byteCount - start
      else {
        throw LongspanError(
          .invalidFile, "\(what) lies at \(offsets), outside the \(byteCount - start) bytes of data")
      }
      var size = width
      for extent in shape {
        let (product, overflow) = size.multipliedReportingOverflow(by: extent)
        guard extent >= 0, !overflow else {
          throw LongspanError(.invalidFile, "\(what) has the illegal shape \(shape)")
        }
        size = product
      }
      guard size == offsets[1] - offsets[0] else {
        throw LongspanError(
          .invalidFile, "\(what) has \(offsets[1] - offsets[0]) bytes, but \(dtype) \(shape) takes \(size)")
      }
      return Tensor(type: dtype, shape: shape, bytes: start + offsets[0]..<start + offsets[1])
    }
  }
}

/// Weights in a file of safetensors.
final class SafetensorsSource: TensorSource {
  let file: SafetensorsFile

  init(_ file: consuming SafetensorsFile) {
    self.file = file
  }

  private static let types: [String: WeightType] = ["F32": .f32, "F16": .f16, "BF16": .bf16]

  var name: String { file.name }

  func hasTensor(named name: String) -> Bool { file[name] != nil }

  func tensor(named name: String) throws(LongspanError) -> StoredTensor {
    let tensor = try find(name)
    return StoredTensor(
      name: name, shape: tensor.shape.reversed(), type: Self.types[tensor.type], typeName: tensor.type)
  }

  func withUnsafeBytes<Result: ~Copyable>(
    of name: String, _ body: (UnsafeRawBufferPointer) throws(LongspanError) -> Result
  ) throws(LongspanError) -> Result {
    try file.withUnsafeBytes(of: find(name), body)
  }

  func describe(_ shape: [Int]) -> String { "\(Array(shape.reversed()))" }

  var storedTensors: [StoredTensor] { file.tensorNames.compactMap { try? tensor(named: $0) } }

  private func find(_ name: String) throws(LongspanError) -> SafetensorsFile.Tensor {
    guard let tensor = file[name] else {
      throw LongspanError(.invalidFile, "\(file.name): has no tensor '\(name)'")
    }
    return tensor
  }
}
