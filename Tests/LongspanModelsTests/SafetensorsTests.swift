import Foundation
import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

@Suite struct SafetensorsTests {
  /// A file with a header that is given as text.
  private static func file(_ header: String, data: Int = 24, length: UInt64? = nil) -> [UInt8] {
    GGUFBuilder.little(length ?? UInt64(header.utf8.count)) + Array(header.utf8)
      + (0..<data).map { UInt8($0 & 0x7F) }
  }

  private static func error(_ bytes: [UInt8]) throws -> LongspanError? {
    try TestFiles.withTemporaryFile(bytes, named: "model.safetensors") { path in
      do throws(LongspanError) {
        _ = try SafetensorsFile(path: path)
        return nil
      } catch {
        return error
      }
    }
  }

  private static func tensor(_ name: String, _ type: String, _ shape: String, _ offsets: String) -> String {
    "\"\(name)\":{\"dtype\":\"\(type)\",\"shape\":\(shape),\"data_offsets\":\(offsets)}"
  }

  @Test func tensorsAreFound() throws {
    let header = [
      "\"__metadata__\":{\"format\":\"pt\"}", Self.tensor("a", "F32", "[2,2]", "[0,16]"),
      Self.tensor("b", "BF16", "[4]", "[16,24]"), Self.tensor("none", "F16", "[0,3]", "[24,24]"),
    ].joined(separator: ",")
    try TestFiles.withTemporaryFile(Self.file("{\(header)}"), named: "model.safetensors") { path in
      let source = SafetensorsSource(try SafetensorsFile(path: path))
      #expect(source.storedTensors.map(\.name) == ["a", "b", "none"])
      let a = try source.tensor(named: "a")
      #expect(a.shape == [2, 2] && a.type == .f32)
      let b = try source.withUnsafeBytes(of: "b") { bytes throws(LongspanError) in Array(bytes) }
      #expect(b == (16..<24).map { UInt8($0) })
      #expect(throws: LongspanError.self) { try source.tensor(named: "c") }
    }
  }

  @Test func brokenFilesAreRefused() throws {
    let a = Self.tensor("a", "F32", "[2,2]", "[0,16]")
    let cases: [(String, [UInt8], String)] = [
      ("empty header length", [1, 2, 3], "too few"),
      ("cut off", Array(Self.file("{\(a)}").prefix(20)), "cut off"),
      ("endless header", Self.file("{\(a)}", length: .max), "header"),
      ("no header", Self.file("", length: 0), "header"),
      ("no JSON", Self.file("{\(a)"), "JSON"),
      ("a list", Self.file("[]"), "JSON"),
      ("no offsets", Self.file("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}"), "a.data_offsets"),
      ("past the end", Self.file("{\(a)}", data: 15), "'a'"),
      ("negative", Self.file("{\(Self.tensor("a", "F32", "[1]", "[-4,0]"))}"), "'a'"),
      ("reversed", Self.file("{\(Self.tensor("a", "F32", "[0]", "[8,4]"))}"), "'a'"),
      ("three offsets", Self.file("{\(Self.tensor("a", "F32", "[1]", "[0,4,8]"))}"), "'a'"),
      ("size of another shape", Self.file("{\(Self.tensor("a", "F32", "[3]", "[0,16]"))}"), "12"),
      ("negative extent", Self.file("{\(Self.tensor("a", "F32", "[-2,-2]", "[0,16]"))}"), "shape"),
      ("overflow", Self.file("{\(Self.tensor("a", "F32", "[4611686018427387904,8]", "[0,16]"))}"), "shape"),
      ("too large a number", Self.file("{\(Self.tensor("a", "F32", "[1e300]", "[0,16]"))}"), "JSON"),
      ("unknown type", Self.file("{\(Self.tensor("a", "F3", "[4]", "[0,16]"))}"), "F3"),
      ("overlap", Self.file("{\(a),\(Self.tensor("b", "F32", "[2]", "[12,20]"))}"), "overlap"),
    ]
    for (what, bytes, part) in cases {
      let found = try Self.error(bytes)
      #expect(found?.message.contains(part) == true, "\(what): \(found?.message ?? "opened")")
    }
    #expect(throws: LongspanError.self) { _ = try SafetensorsFile(path: "/nonexistent/model.safetensors") }
  }

  /// Whatever byte of a header changes, opening either works or throws.
  @Test func damagedHeadersDoNotTrap() throws {
    let bytes = Array(
      try TestFiles.bytes(URL(filePath: MambaFixtures.folder("mamba") + "/model.safetensors")))
    let header = 8 + Int(bytes[0]) + Int(bytes[1]) << 8
    var generator = Xoshiro256StarStar(seed: 1)
    for _ in 0..<2000 {
      var damaged = bytes
      damaged[Int(generator.next() % UInt64(header))] = UInt8(truncatingIfNeeded: generator.next())
      _ = try Self.error(damaged)
    }
    for count in [0, 1, 7, 8, 9, 100, header, bytes.count - 1] {
      #expect(try Self.error(Array(bytes.prefix(count))) != nil)
    }
  }
}
