import LongspanKernels
import Testing

@testable import LongspanModels

/// Reading well-formed GGUF files.
struct GGUFFileTests {
  /// A file with one value of each type and three tensors.
  private static func sample() -> GGUFBuilder {
    var builder = GGUFBuilder()
    builder.add("uint8", type: 0, value: [200])
    builder.add("int8", type: 1, value: [0xFE])
    builder.add("uint16", type: 2, value: GGUFBuilder.little(UInt16(60_000)))
    builder.add("int16", type: 3, value: GGUFBuilder.little(Int16(-300)))
    builder.add("uint32", 4_000_000_000)
    builder.add("int32", type: 5, value: GGUFBuilder.little(Int32(-5)))
    builder.add("float32", type: 6, value: GGUFBuilder.little(Float(1.5).bitPattern))
    builder.add("bool", true)
    builder.add("string", "grüße")
    builder.add("uint64", type: 10, value: GGUFBuilder.little(UInt64.max))
    builder.add("int64", type: 11, value: GGUFBuilder.little(Int64.min))
    builder.add("float64", type: 12, value: GGUFBuilder.little(0.1.bitPattern))
    builder.add("strings", ["", "a", "ĠĠ"])
    builder.add("int32s", [-1, 2])
    builder.add("bools", elementType: 7, count: 2, elements: [1, 0])
    builder.add("float64s", elementType: 12, count: 1, elements: GGUFBuilder.little(0.5.bitPattern))
    builder.add("uint64s", elementType: 10, count: 1, elements: GGUFBuilder.little(UInt64.max))
    builder.addTensor("matrix", [3, 2])
    builder.addTensor("vector", [5])
    builder.tensors.append(.init(name: "blocks", shape: [64, 2, 1, 1], type: 3, data: [UInt8](0..<80)))
    return builder
  }

  @Test(arguments: [2, 3] as [UInt32])
  func metadataOfEveryTypeIsRead(version: UInt32) throws {
    var builder = Self.sample()
    builder.version = version
    try TestFiles.withTemporaryFile(builder.build()) { path in
      let file = try GGUFFile(path: path)
      #expect(file.version == version)
      #expect(file.name == "model.gguf")
      let expected: [String: GGUFValue] = [
        "uint8": .uint8(200), "int8": .int8(-2), "uint16": .uint16(60_000), "int16": .int16(-300),
        "uint32": .uint32(4_000_000_000), "int32": .int32(-5), "float32": .float32(1.5), "bool": .bool(true),
        "string": .string("grüße"), "uint64": .uint64(.max), "int64": .int64(.min), "float64": .float64(0.1),
        "strings": .array(.string(["", "a", "ĠĠ"])), "int32s": .array(.int32([-1, 2])),
        "bools": .array(.bool([true, false])), "float64s": .array(.float64([0.5])),
        "uint64s": .array(.uint64([.max])),
      ]
      #expect(file.metadata == expected)
    }
  }

  @Test func accessorsConvertAndDefault() throws {
    try TestFiles.withTemporaryFile(Self.sample().build()) { path in
      let file = try GGUFFile(path: path)
      #expect(try file.int("uint8") == 200)
      #expect(try file.int("int64") == Int.min)
      #expect(try file.int("absent", default: 7) == 7)
      #expect(try file.float("float32") == 1.5)
      #expect(try file.float("float64") == 0.1)
      #expect(try file.float("absent", default: 2) == 2)
      #expect(try file.bool("bool"))
      #expect(try file.bool("absent", default: false) == false)
      #expect(try file.string("string", default: "x") == "grüße")
      #expect(try file.string("absent", default: "x") == "x")
      #expect(try file.strings("strings").count == 3)
      #expect(try file.strings("absent", default: ["y"]) == ["y"])
      #expect(try file.ints("int32s") == [-1, 2])
      #expect(try file.ints("absent", default: [3]) == [3])
      #expect(try file.floats("float64s") == [0.5])
      #expect(try file.floats("absent", default: []) == [])
    }
  }

  @Test func accessorsNameKeyAndType() throws {
    try TestFiles.withTemporaryFile(Self.sample().build()) { path in
      let file = try GGUFFile(path: path)
      func message(_ body: () throws(LongspanError) -> Void) -> String {
        do throws(LongspanError) {
          try body()
          return "no error"
        } catch {
          return error.code == .invalidFile ? error.message : "wrong code"
        }
      }
      let absent = "model.gguf: has no metadata key 'absent' (an integer is expected)"
      #expect(message { () throws(LongspanError) in _ = try file.int("absent") } == absent)
      let mismatch = "model.gguf: metadata key 'string' is string, but an integer is expected"
      #expect(message { () throws(LongspanError) in _ = try file.int("string", default: 1) } == mismatch)
      let array = "model.gguf: metadata key 'int32s' is array of int32, but an array of strings is expected"
      #expect(message { () throws(LongspanError) in _ = try file.strings("int32s") } == array)
      let wide = "model.gguf: metadata key 'uint64' is uint64, but an integer is expected"
      #expect(message { () throws(LongspanError) in _ = try file.int("uint64") } == wide)
      let wideArray =
        "model.gguf: metadata key 'uint64s' is array of uint64, but an array of integers is expected"
      #expect(message { () throws(LongspanError) in _ = try file.ints("uint64s") } == wideArray)
      let noTensor = "model.gguf: has no tensor 'absent'"
      #expect(message { () throws(LongspanError) in _ = try file.tensor(named: "absent") } == noTensor)
    }
  }

  @Test(arguments: [32, 64, 1])
  func tensorsAreBorrowedFromTheFile(alignment: Int) throws {
    var builder = Self.sample()
    builder.alignment = alignment
    builder.add("general.alignment", UInt32(alignment))
    try TestFiles.withTemporaryFile(builder.build()) { path in
      let file = try GGUFFile(path: path)
      #expect(file.tensors.map(\.name) == ["matrix", "vector", "blocks"])
      let matrix = try file.tensor(named: "matrix")
      #expect(matrix.shape == [3, 2])
      #expect(matrix.type == .f32)
      #expect(matrix.elementCount == 6)
      #expect(matrix.byteCount == 24)
      #expect(matrix.offset % alignment == 0)
      let bytes = try file.bytes(of: matrix)
      #expect(bytes.byteCount == 24)
      for index in 0..<6 {
        #expect(bytes.unsafeLoadUnaligned(fromByteOffset: 4 * index, as: Float.self) == Float(index))
      }
      let blocks = try file.tensor(named: "blocks")
      #expect(blocks.byteCount == 80)
      #expect(blocks.type == .q4_1)
      let copy = try file.withUnsafeBytes(of: blocks) { Array($0) }
      #expect(copy == [UInt8](0..<80))
      #expect(file.hasTensor(named: "vector") == true)
      #expect(file.hasTensor(named: "tensor") == false)
    }
  }

  @Test func aTensorOfAnotherFileIsRefused() throws {
    var other = GGUFBuilder()
    other.addTensor("matrix", [1000])
    try TestFiles.withTemporaryFile(other.build()) { otherPath in
      try TestFiles.withTemporaryFile(Self.sample().build()) { path in
        let stranger = try GGUFFile(path: otherPath).tensor(named: "matrix")
        let file = try GGUFFile(path: path)
        #expect(throws: LongspanError.self) { try file.withUnsafeBytes(of: stranger) { _ in } }
      }
    }
  }

  @Test func aFileWithoutTensorsOpens() throws {
    try TestFiles.withTemporaryFile(GGUFBuilder().build()) { path in
      let file = try GGUFFile(path: path)
      #expect(file.tensors.isEmpty)
      #expect(file.metadata.isEmpty)
    }
  }

  @Test func stringsThatAreNotUTF8AreRepaired() throws {
    var builder = GGUFBuilder()
    builder.add("text", type: 8, value: GGUFBuilder.little(UInt64(3)) + [0x61, 0xFF, 0x62])
    try TestFiles.withTemporaryFile(builder.build()) { path in
      let file = try GGUFFile(path: path)
      #expect(try file.string("text") == "a\u{FFFD}b")
    }
  }

  @Test func tensorTypesAreNamed() {
    #expect(GGUFTensorType.q4_K.description == "Q4_K")
    #expect(GGUFTensorType(rawValue: 16).name == "IQ2_XXS")
    #expect(GGUFTensorType(rawValue: 99).name == "type 99")
    #expect(GGUFTensorType(rawValue: 99).layout == nil)
    #expect(GGUFTensorType.q6_K.blockSize == 256)
    #expect(GGUFTensorType.q6_K.bytesPerBlock == 210)
  }

  @Test func fixturesOfBothVersionsAgree() throws {
    let new = try GGUFFile(path: TestFiles.fixture("tiny/tied.gguf").path)
    let old = try GGUFFile(path: TestFiles.fixture("tiny/tied-v2.gguf").path)
    #expect(new.version == 3)
    #expect(old.version == 2)
    #expect(new.metadata == old.metadata)
    #expect(new.tensors == old.tensors)
    #expect(try new.tensor(named: "token_embd.weight").shape == [72, 283])
    // The norm's 72 floats are the last in the file, which ends with the padding of its data section.
    let last = try new.tensor(named: "output_norm.weight")
    #expect(last.byteCount == 288)
    #expect((0..<32).contains(new.byteCount - last.offset - last.byteCount))
    #expect(try new.float("llama.rope.freq_base") == 7000)
  }

  @Test func aTensorTypeWithoutKernelsIsListed() throws {
    let file = try GGUFFile(path: TestFiles.fixture("tiny/unsupported-type.gguf").path)
    let tensor = try file.tensor(named: "blk.0.ffn_down.weight")
    #expect(tensor.type.name == "IQ2_XXS")
    #expect(try file.bytes(of: tensor).byteCount == tensor.byteCount)
  }
}
