import LongspanKernels

/// What the header of a GGUF file says, checked against the file's length.
struct GGUFHeader {
  let version: UInt32
  let metadata: [String: GGUFValue]
  let tensors: [GGUFTensor]
}

extension GGUFHeader {
  /// Reads the header from the bytes of a whole file. `fileName` begins each error message.
  init(_ bytes: RawSpan, fileName: String) throws(LongspanError) {
    var parser = GGUFParser(bytes, fileName: fileName)
    self = try parser.parse()
  }
}

/// Reads the header of a GGUF file: magic, version, metadata and tensor descriptions.
///
/// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. No count, length or offset is believed
/// before it was compared with the number of bytes in the file.
private struct GGUFParser: ~Escapable {
  private var cursor: GGUFCursor
  private let byteCount: Int

  @_lifetime(copy bytes)
  init(_ bytes: RawSpan, fileName: String) {
    self.cursor = GGUFCursor(bytes, fileName: fileName)
    self.byteCount = bytes.byteCount
  }

  mutating func parse() throws(LongspanError) -> GGUFHeader {
    let version = try preamble()
    let tensorCount = try cursor.integer(UInt64.self, "the tensor count")
    let metadataCount = try cursor.integer(UInt64.self, "the metadata count")
    // The shortest metadata entry is an empty key (8 bytes), a type (4) and a one-byte value.
    try cursor.requireCount(metadataCount, elementSize: 13, "the metadata")
    let metadata = try metadata(count: Int(metadataCount))
    // The shortest description is an empty name (8), a dimension count (4), one extent (8), type (4), offset (8).
    try cursor.requireCount(tensorCount, elementSize: 32, "the tensor list")
    let tensors = try tensors(count: Int(tensorCount), alignment: alignment(metadata))
    return GGUFHeader(version: version, metadata: metadata, tensors: tensors)
  }

  private mutating func preamble() throws(LongspanError) -> UInt32 {
    // "GGUF" read as a little-endian number.
    guard try cursor.integer(UInt32.self, "the magic number") == 0x4655_4747 else {
      throw cursor.invalid("is not a GGUF file (it does not begin with 'GGUF')")
    }
    let version = try cursor.integer(UInt32.self, "the version")
    switch version {
    case 2, 3:
      return version
    case 1:
      throw unsupported("GGUF version 1 is not supported; convert the file to version 3")
    case let version where version != 0 && version & 0xFFFF == 0:
      throw unsupported("big-endian GGUF is not supported")
    default:
      throw unsupported("GGUF version \(version) is not supported; versions 2 and 3 are")
    }
  }

  private func unsupported(_ message: String) -> LongspanError {
    LongspanError(.unsupported, "\(cursor.fileName): \(message)")
  }
}

// MARK: - Metadata

extension GGUFParser {
  private mutating func metadata(count: Int) throws(LongspanError) -> [String: GGUFValue] {
    var metadata: [String: GGUFValue] = [:]
    for index in 0..<count {
      let start = cursor.offset
      let key = try cursor.string("metadata key \(index)")
      guard metadata[key] == nil else {
        throw cursor.invalid("metadata key '\(key)' at byte \(start) occurs twice")
      }
      metadata[key] = try value(key: key)
    }
    return metadata
  }

  private mutating func value(key: String) throws(LongspanError) -> GGUFValue {
    let typeID = try cursor.integer(UInt32.self, "the type of metadata key '\(key)'")
    let what = "the value of metadata key '\(key)'"
    switch typeID {
    case 0: return .uint8(try cursor.integer(UInt8.self, what))
    case 1: return .int8(try cursor.integer(Int8.self, what))
    case 2: return .uint16(try cursor.integer(UInt16.self, what))
    case 3: return .int16(try cursor.integer(Int16.self, what))
    case 4: return .uint32(try cursor.integer(UInt32.self, what))
    case 5: return .int32(try cursor.integer(Int32.self, what))
    case 6: return .float32(Float(bitPattern: try cursor.integer(UInt32.self, what)))
    case 7:
      let offset = cursor.offset
      let byte = try cursor.integer(UInt8.self, what)
      guard let value = Self.bool(byte) else {
        throw cursor.invalid("\(what) at byte \(offset) is a bool with the illegal value \(byte)")
      }
      return .bool(value)
    case 8: return .string(try cursor.string(what))
    case 9: return .array(try array(key: key))
    case 10: return .uint64(try cursor.integer(UInt64.self, what))
    case 11: return .int64(try cursor.integer(Int64.self, what))
    case 12: return .float64(Double(bitPattern: try cursor.integer(UInt64.self, what)))
    default: throw unknownType(typeID, "metadata key '\(key)'")
    }
  }

  private mutating func array(key: String) throws(LongspanError) -> GGUFArray {
    let typeID = try cursor.integer(UInt32.self, "the element type of metadata key '\(key)'")
    let count = try cursor.integer(UInt64.self, "the element count of metadata key '\(key)'")
    let what = "the array of metadata key '\(key)'"
    switch typeID {
    case 0: return .uint8(try cursor.array(of: UInt8.self, count: count, what) { $0 })
    case 1: return .int8(try cursor.array(of: Int8.self, count: count, what) { $0 })
    case 2: return .uint16(try cursor.array(of: UInt16.self, count: count, what) { $0 })
    case 3: return .int16(try cursor.array(of: Int16.self, count: count, what) { $0 })
    case 4: return .uint32(try cursor.array(of: UInt32.self, count: count, what) { $0 })
    case 5: return .int32(try cursor.array(of: Int32.self, count: count, what) { $0 })
    case 6:
      return .float32(try cursor.array(of: UInt32.self, count: count, what) { Float(bitPattern: $0) })
    case 7: return .bool(try cursor.array(of: UInt8.self, count: count, what) { Self.bool($0) })
    case 8: return .string(try strings(count: count, what))
    case 9: throw unsupported("metadata key '\(key)' is an array of arrays, which is not supported")
    case 10: return .uint64(try cursor.array(of: UInt64.self, count: count, what) { $0 })
    case 11: return .int64(try cursor.array(of: Int64.self, count: count, what) { $0 })
    case 12:
      return .float64(try cursor.array(of: UInt64.self, count: count, what) { Double(bitPattern: $0) })
    default: throw unknownType(typeID, "the array elements of metadata key '\(key)'")
    }
  }

  private mutating func strings(count: UInt64, _ what: String) throws(LongspanError) -> [String] {
    try cursor.requireCount(count, elementSize: 8, what)
    var result: [String] = []
    result.reserveCapacity(Int(count))
    for index in 0..<Int(count) {
      result.append(try cursor.string("string \(index) in \(what)"))
    }
    return result
  }

  private static func bool(_ byte: UInt8) -> Bool? {
    byte <= 1 ? byte == 1 : nil
  }

  private func unknownType(_ typeID: UInt32, _ what: String) -> LongspanError {
    cursor.invalid("\(what) has the unknown value type \(typeID) before byte \(cursor.offset)")
  }
}

// MARK: - Tensors

extension GGUFParser {
  /// A tensor description whose offset still counts from the beginning of the data section.
  private struct Description {
    var name: String
    var shape: [Int]
    var type: GGUFTensorType
    var relativeOffset: UInt64
    var byteCount: Int
  }

  private func alignment(_ metadata: [String: GGUFValue]) throws(LongspanError) -> Int {
    guard let value = metadata["general.alignment"] else { return 32 }
    guard let alignment = value.integer, alignment > 0, alignment & (alignment - 1) == 0,
      alignment <= Int(UInt32.max)
    else {
      throw cursor.invalid("metadata key 'general.alignment' is not a power of two below 2^32")
    }
    return alignment
  }

  private mutating func tensors(count: Int, alignment: Int) throws(LongspanError) -> [GGUFTensor] {
    var names: Set<String> = []
    var descriptions: [Description] = []
    for index in 0..<count {
      let start = cursor.offset
      let description = try description(index: index)
      guard names.insert(description.name).inserted else {
        throw cursor.invalid("tensor name '\(description.name)' at byte \(start) occurs twice")
      }
      descriptions.append(description)
    }
    let dataStart = (cursor.offset + alignment - 1) & ~(alignment - 1)
    var tensors: [GGUFTensor] = []
    tensors.reserveCapacity(descriptions.count)
    for description in descriptions {
      tensors.append(try place(description, dataStart: dataStart, alignment: alignment))
    }
    return tensors
  }

  private mutating func description(index: Int) throws(LongspanError) -> Description {
    let name = try cursor.string("the name of tensor \(index)")
    let what = "tensor '\(name)'"
    let rank = try cursor.integer(UInt32.self, "the dimension count of \(what)")
    guard (1...4).contains(rank) else {
      throw cursor.invalid("\(what) has \(rank) dimensions; 1 to 4 are possible")
    }
    var shape: [Int] = []
    var elementCount = 1
    for dimension in 0..<Int(rank) {
      let raw = try cursor.integer(UInt64.self, "extent \(dimension) of \(what)")
      guard let extent = Int(exactly: raw), extent > 0 else {
        throw cursor.invalid("\(what) has the illegal extent \(raw) in dimension \(dimension)")
      }
      let product = elementCount.multipliedReportingOverflow(by: extent)
      guard !product.overflow else {
        throw cursor.invalid("\(what) has an element count that overflows (extents \(shape + [extent]))")
      }
      elementCount = product.partialValue
      shape.append(extent)
    }
    let type = GGUFTensorType(rawValue: try cursor.integer(UInt32.self, "the type of \(what)"))
    guard let layout = type.layout else {
      throw unsupported("\(what) has the unknown tensor type \(type.rawValue)")
    }
    guard shape[0] % layout.blockSize == 0 else {
      throw cursor.invalid(
        "\(what) has rows of \(shape[0]) elements, which is no multiple of the \(layout.blockSize) in a "
          + "\(layout.name) block")
    }
    let size = (elementCount / layout.blockSize).multipliedReportingOverflow(by: layout.bytesPerBlock)
    guard !size.overflow else {
      throw cursor.invalid(
        "\(what) has a byte count that overflows (\(elementCount) elements of \(layout.name))")
    }
    let offset = try cursor.integer(UInt64.self, "the offset of \(what)")
    return Description(
      name: name, shape: shape, type: type, relativeOffset: offset, byteCount: size.partialValue)
  }

  private func place(
    _ description: Description, dataStart: Int, alignment: Int
  ) throws(LongspanError) -> GGUFTensor {
    let what = "tensor '\(description.name)'"
    guard let relative = Int(exactly: description.relativeOffset), relative <= byteCount else {
      throw cursor.invalid(
        "\(what) has the offset \(description.relativeOffset), but the file has \(byteCount) bytes")
    }
    guard relative % alignment == 0 else {
      throw cursor.invalid(
        "\(what) has the offset \(relative), which is no multiple of the alignment \(alignment)")
    }
    // Neither sum below can overflow: all but the tensor's size are at most the file's length or 2^32.
    let offset = dataStart + relative
    let end = offset.addingReportingOverflow(description.byteCount)
    guard !end.overflow else {
      throw cursor.invalid("\(what) begins at byte \(offset) and has an end that overflows")
    }
    guard end.partialValue <= byteCount else {
      throw cursor.invalid("\(what) ends at byte \(end.partialValue) but the file has \(byteCount)")
    }
    return GGUFTensor(
      name: description.name, shape: description.shape, type: description.type, offset: offset,
      byteCount: description.byteCount)
  }
}
