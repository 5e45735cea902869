import Foundation
import LongspanKernels
import Testing

@testable import LongspanModels

/// Damaged GGUF files: each is refused with one line that names the file and the fault, and none is read past
/// its end.
struct GGUFDamageTests {
  /// A fault and the error that must come of it.
  struct Fault: CustomTestStringConvertible, Sendable {
    let name: String
    let file: [UInt8]
    var code = LongspanError.Code.invalidFile
    let message: String

    var testDescription: String { name }
  }

  private static func error(of file: [UInt8]) throws -> LongspanError? {
    try TestFiles.withTemporaryFile(file) { path in
      do throws(LongspanError) {
        _ = try GGUFFile(path: path)
        return nil
      } catch {
        return error
      }
    }
  }

  private static func file(_ change: (inout GGUFBuilder) -> Void) -> [UInt8] {
    var builder = GGUFBuilder()
    change(&builder)
    return builder.build()
  }

  private static func tensor(_ shape: [UInt64], type: UInt32 = 0, offset: UInt64? = nil, bytes: Int = 0)
    -> [UInt8]
  {
    file {
      $0.tensors.append(
        .init(name: "t", shape: shape, type: type, offset: offset, data: [UInt8](repeating: 1, count: bytes)))
    }
  }

  @Test(arguments: faults)
  func faultIsNamed(_ fault: Fault) throws {
    let error = try #require(try Self.error(of: fault.file))
    #expect(error.code == fault.code)
    #expect(error.message == "model.gguf: \(fault.message)")
  }

  static let faults: [Fault] = [
    Fault(
      name: "magic", file: file { $0.magic = Array("GGML".utf8) },
      message: "is not a GGUF file (it does not begin with 'GGUF')"),
    Fault(
      name: "version 1", file: file { $0.version = 1 }, code: .unsupported,
      message: "GGUF version 1 is not supported; convert the file to version 3"),
    Fault(
      name: "big-endian", file: file { $0.version = UInt32(3).byteSwapped }, code: .unsupported,
      message: "big-endian GGUF is not supported"),
    Fault(
      name: "version 4", file: file { $0.version = 4 }, code: .unsupported,
      message: "GGUF version 4 is not supported; versions 2 and 3 are"),
    Fault(
      name: "version 0", file: file { $0.version = 0 }, code: .unsupported,
      message: "GGUF version 0 is not supported; versions 2 and 3 are"),
    Fault(
      name: "2^60 tensors", file: file { $0.tensorCount = 1 << 60 },
      message: "the tensor list claims 1152921504606846976 elements at byte 24, but "
        + "the file has only 8 bytes left"
    ),
    Fault(
      name: "2^64 - 1 metadata entries", file: file { $0.metadataCount = .max },
      message: "the metadata claims 18446744073709551615 elements at byte 24, but the "
        + "file has only 8 bytes left"),
    Fault(
      name: "key length past the end",
      file: file { $0.add("a", 1) }.replacing(at: 24, with: GGUFBuilder.little(UInt64.max)),
      message: "the length 18446744073709551615 of metadata key 0 at byte 24 goes past the end of the file"),
    Fault(
      name: "string length past the end",
      file: file { $0.add("a", type: 8, value: GGUFBuilder.little(UInt64(1 << 40))) },
      message: "the length 1099511627776 of the value of metadata key 'a' at byte 37 "
        + "goes past the end of the file"
    ),
    Fault(
      name: "duplicate key",
      file: file {
        $0.add("a", 1)
        $0.add("a", 2)
      },
      message: "metadata key 'a' at byte 41 occurs twice"),
    Fault(
      name: "value type", file: file { $0.add("a", type: 13, value: [0, 0, 0, 0]) },
      message: "metadata key 'a' has the unknown value type 13 before byte 37"),
    Fault(
      name: "bool", file: file { $0.add("a", type: 7, value: [2]) },
      message: "the value of metadata key 'a' at byte 37 is a bool with the illegal value 2"),
    Fault(
      name: "bool in array", file: file { $0.add("a", elementType: 7, count: 3, elements: [1, 0, 255]) },
      message: "element 2 of the array of metadata key 'a' at byte 51 has the illegal value 255"),
    Fault(
      name: "array count that overflows a byte count",
      file: file { $0.add("a", elementType: 10, count: 1 << 61, elements: []) },
      message: "the array of metadata key 'a' claims 2305843009213693952 elements at "
        + "byte 49, but the file has only "
        + "15 bytes left"),
    Fault(
      name: "string array count", file: file { $0.add("a", elementType: 8, count: .max, elements: []) },
      message: "the array of metadata key 'a' claims 18446744073709551615 elements at "
        + "byte 49, but the file has only "
        + "15 bytes left"),
    Fault(
      name: "string in array past the end",
      file: file { $0.add("a", elementType: 8, count: 1, elements: GGUFBuilder.little(UInt64(99))) },
      message: "the length 99 of string 0 in the array of metadata key 'a' at byte 49 "
        + "goes past the end of the file"),
    Fault(
      name: "array type", file: file { $0.add("a", elementType: 77, count: 0, elements: []) },
      message: "the array elements of metadata key 'a' has the unknown value type 77 before byte 49"),
    Fault(
      name: "nested array", file: file { $0.add("a", elementType: 9, count: 1, elements: []) },
      code: .unsupported, message: "metadata key 'a' is an array of arrays, which is not supported"),
    Fault(
      name: "alignment 0", file: file { $0.add("general.alignment", 0) },
      message: "metadata key 'general.alignment' is not a power of two below 2^32"),
    Fault(
      name: "alignment 48", file: file { $0.add("general.alignment", 48) },
      message: "metadata key 'general.alignment' is not a power of two below 2^32"),
    Fault(
      name: "alignment as text", file: file { $0.add("general.alignment", "32") },
      message: "metadata key 'general.alignment' is not a power of two below 2^32"),
    Fault(
      name: "no dimensions", file: tensor([], bytes: 64),
      message: "tensor 't' has 0 dimensions; 1 to 4 are possible"),
    Fault(
      name: "five dimensions", file: tensor([1, 1, 1, 1, 1], bytes: 4),
      message: "tensor 't' has 5 dimensions; 1 to 4 are possible"),
    Fault(
      name: "extent 0", file: tensor([4, 0], bytes: 16),
      message: "tensor 't' has the illegal extent 0 in dimension 1"),
    Fault(
      name: "extent 2^63", file: tensor([1 << 63], bytes: 16),
      message: "tensor 't' has the illegal extent 9223372036854775808 in dimension 0"),
    Fault(
      name: "element count overflow", file: tensor([1 << 32, 1 << 32], bytes: 16),
      message: "tensor 't' has an element count that overflows (extents [4294967296, 4294967296])"),
    Fault(
      name: "byte count overflow", file: tensor([1 << 31, 1 << 31], bytes: 16),
      message: "tensor 't' has a byte count that overflows (4611686018427387904 elements of F32)"),
    Fault(
      name: "row of half blocks", file: tensor([48, 2], type: 2, bytes: 54),
      message: "tensor 't' has rows of 48 elements, which is no multiple of the 32 in a Q4_0 block"),
    Fault(
      name: "unknown tensor type", file: tensor([4], type: 99, bytes: 16), code: .unsupported,
      message: "tensor 't' has the unknown tensor type 99"),
    Fault(
      name: "withdrawn tensor type", file: tensor([32], type: 4, bytes: 32), code: .unsupported,
      message: "tensor 't' has the unknown tensor type 4"),
    Fault(
      name: "offset past the end", file: tensor([4], offset: 128, bytes: 16),
      message: "tensor 't' has the offset 128, but the file has 80 bytes"),
    Fault(
      name: "offset 2^64 - 32", file: tensor([4], offset: UInt64.max - 31, bytes: 16),
      message: "tensor 't' has the offset 18446744073709551584, but the file has 80 bytes"),
    Fault(
      name: "offset not aligned", file: tensor([4], offset: 4, bytes: 64),
      message: "tensor 't' has the offset 4, which is no multiple of the alignment 32"),
    Fault(
      name: "data past the end", file: tensor([5], bytes: 16),
      message: "tensor 't' ends at byte 84 but the file has 80"),
    Fault(
      name: "end that overflows", file: tensor([1 << 60], type: 28, offset: 0, bytes: 64),
      message: "tensor 't' has a byte count that overflows (1152921504606846976 elements of F64)"),
    Fault(
      name: "end that overflows after the offset", file: tensor([(1 << 61) - 1], bytes: 64),
      message: "tensor 't' begins at byte 64 and has an end that overflows"),
    Fault(
      name: "duplicate tensor",
      file: file {
        $0.addTensor("t", [1])
        $0.addTensor("t", [1])
      },
      message: "tensor name 't' at byte 57 occurs twice"),
  ]

  // MARK: Truncation and noise

  /// Cut anywhere, a small file is refused with a line that names it.
  @Test(arguments: ["tied.gguf", "untied.gguf"])
  func truncatedFilesAreRefused(name: String) throws {
    let whole = try TestFiles.bytes(TestFiles.fixture("tiny/\(name)"))
    let tensors = try GGUFFile(path: TestFiles.fixture("tiny/\(name)").path).tensors
    // What follows the last tensor is padding, which nobody misses.
    let end = try #require(tensors.map { $0.offset + $0.byteCount }.max())
    let lengths = Array(1..<4096) + Array(stride(from: 4096, to: end, by: 1000)) + [end - 1]
    for length in lengths {
      let error = try Self.error(of: Array(whole[..<length]))
      guard let error, error.code == .invalidFile, error.message.hasPrefix("model.gguf: "),
        !error.message.contains("\n")
      else {
        Issue.record("cut to \(length) bytes: \(String(describing: error))")
        return
      }
    }
    #expect(try Self.error(of: Array(whole[..<end])) == nil)
  }

  /// Random bytes in the header give an error or a file whose tensors can be read, never a crash.
  @Test func noiseInTheHeaderNeverCrashes() throws {
    let whole = try TestFiles.bytes(TestFiles.fixture("tiny/no-merges.gguf"))
    let seed: UInt64 = 20_260_101
    var state = seed
    func next(_ bound: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33) % bound
    }
    var opened = 0
    for _ in 0..<1000 {
      var damaged = whole
      for _ in 0...next(3) { damaged[next(6000)] = [0, 1, 0x7F, 0x80, 0xFF, UInt8(next(256))][next(6)] }
      try TestFiles.withTemporaryFile(damaged) { path in
        do throws(LongspanError) {
          let file = try GGUFFile(path: path)
          opened += 1
          for tensor in file.tensors {
            let bytes = try file.bytes(of: tensor)
            #expect(bytes.byteCount == tensor.byteCount)
            _ = bytes.unsafeLoad(fromByteOffset: bytes.byteCount - 1, as: UInt8.self)
          }
          _ = try? BPETokenizer(file)
        } catch {
          #expect(error.message.hasPrefix("model.gguf: "), "seed \(seed)")
        }
      }
    }
    // Most changes hit a string and leave the format intact; neither outcome may be missing.
    #expect(opened > 50 && opened < 950)
  }

  // MARK: Files that are no files

  @Test func emptyFile() throws {
    let error = try #require(try Self.error(of: []))
    #expect(error.code == .invalidFile)
    #expect(error.message.hasSuffix("/model.gguf: is empty"))
  }

  @Test(arguments: ["/nonexistent/model.gguf", "/"])
  func unreadablePaths(path: String) {
    do throws(LongspanError) {
      _ = try GGUFFile(path: path)
      Issue.record("\(path) was opened")
    } catch {
      #expect(error.code == .unreadableFile)
      #expect(error.message.hasPrefix("\(path): "))
    }
  }
}

extension [UInt8] {
  fileprivate func replacing(at offset: Int, with bytes: [UInt8]) -> [UInt8] {
    var copy = self
    copy.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    return copy
  }
}
