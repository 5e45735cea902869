import Foundation
import Longspan
import LongspanKernels
import Testing

/// Cases of the float64 oracle of LagKV (Tests/Oracles/make_lagkv.py).
enum LagKVFixtures {
  struct Slice: Decodable {
    let type: String
    let offset: Int
    let count: Int
    let shape: [Int]
  }

  struct Parameters: Decodable {
    let tokens: Int
    let heads: Int
    let headDim: Int
    let sink: Int
    let lag: Int
    let ratio: Double
    let keep: Int
    let valueWeight: Float
    let keptSlots: Int
    let layers: Int?

    func policy(
      prefill: LagRelativeCompression.Prefill = .chunked, positions: KVPositions = .absolute,
      mode: LagRelativeCompression.Mode = .useThenCompress
    ) throws -> LagRelativeCompression {
      try LagRelativeCompression(
        sink: sink, lag: lag, ratio: ratio, valueWeight: valueWeight, mode: mode, prefill: prefill,
        positions: positions)
    }
  }

  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    struct Arrays: Decodable, Sendable {
      let keys: Slice
      let values: Slice
      let scores: Slice
      let gaps: Slice
      let kept: Slice
    }
    /// Slots after each compression: tokens read, slots before and after, final slots.
    struct Events: Decodable, Sendable {
      let oneshot: [[Int]]
      let chunked: [[Int]]
      let decode: [[Int]]
    }
    let name: String
    let dtype: String
    let prefill: Int
    let parameters: Parameters
    let events: Events
    let arrays: Arrays
    var testDescription: String { name }
  }

  struct Attention: Decodable {
    struct Parameters: Decodable {
      let tokens: Int
      let heads: Int
      let headDim: Int
      let sink: Int
      let lag: Int
      let keep: Int
      let queryHeads: Int
      let queries: Int
      let rawWindows: Int
      let keptWindows: Int
      let scale: Float
    }
    struct Arrays: Decodable {
      let q: Slice
      let k: Slice
      let v: Slice
      let kept: Slice
      let out: Slice
    }
    let name: String
    let parameters: Parameters
    let arrays: Arrays
  }

  struct Cases: Decodable {
    struct Size: Decodable {
      let tokens: Int
      let sink: Int
      let lag: Int
      let ratio: Double
      let keptSlots: Int
    }
    struct Keep: Decodable {
      let lag: Int
      let ratio: Double
      let keep: Int
    }
    let sizes: [Size]
    let keeps: [Keep]
    let cases: [Case]
    let attention: [Attention]
  }

  struct Model: Decodable {
    struct Stored: Decodable {
      struct Arrays: Decodable {
        let keys: Slice
        let values: Slice
      }
      struct Case: Decodable {
        struct Arrays: Decodable {
          let kept: Slice
          let gaps: Slice
          let scores: Slice
        }
        let parameters: Parameters
        let arrays: Arrays
      }
      let layer: Int
      let arrays: Arrays
      let cases: [Case]
    }
    struct Whole: Decodable {
      struct Arrays: Decodable {
        let kept: Slice
        let gaps: Slice
      }
      let parameters: Parameters
      let arrays: Arrays
    }
    let stored: [Stored]
    let whole: Whole
  }

  static func cases() throws -> Cases { try TestFiles.json(Cases.self, "lagkv/cases.json") }
  static func model() throws -> Model { try TestFiles.json(Model.self, "lagkv/smollm2.json") }

  /// The arrays of one description.
  struct Blobs {
    private let floats: [UInt8]
    private let halves: [UInt8]

    init(_ name: String) throws {
      floats = try TestFiles.bytes(TestFiles.fixture("lagkv/\(name).f32"))
      halves = try TestFiles.bytes(TestFiles.fixture("lagkv/\(name).u16"))
    }

    /// The bytes of an array, of floats or of 16-bit elements.
    func bytes(_ slice: Slice) -> [UInt8] {
      let width = slice.type == "f32" ? 4 : 2
      let all = slice.type == "f32" ? floats : halves
      return Array(all[slice.offset * width..<(slice.offset + slice.count) * width])
    }

    func floats(_ slice: Slice) -> [Float] {
      bytes(slice).withUnsafeBytes { bytes in
        (0..<slice.count).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
      }
    }

    func integers(_ slice: Slice) -> [Int] {
      bytes(slice).withUnsafeBytes { bytes in
        (0..<slice.count).map { Int(bytes.loadUnaligned(fromByteOffset: 2 * $0, as: UInt16.self)) }
      }
    }
  }
}
